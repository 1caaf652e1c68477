"""Retrieval quality on a BEIR folder: exact cosine search, measured as trec_eval does."""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from . import beir, metrics
from .model import model_folder

SHALLOW, DEEP = 10, 100
QUERIES_AT_ONCE = 256  # rows of the score matrix held at once


class Retriever(Protocol):
    """What quality is measured of: something that encodes queries and documents."""

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]: ...

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]: ...


class _Retriever:
    """Longspan and sentence-transformers have the same method names; only how they show progress is chosen here."""

    def __init__(self, encoder: Any, progress: bool) -> None:
        self._encoder = encoder
        self._progress = progress

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.asarray(self._encoder.encode_query(list(texts), show_progress_bar=False), dtype=np.float32)

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = self._encoder.encode_document(list(texts), show_progress_bar=self._progress)
        return np.asarray(vectors, dtype=np.float32)


def retriever(implementation: str, model: Path, progress: bool, weights: str = "auto") -> Retriever:
    """Loads the model with the named implementation; long texts are cut at its maximum, as published figures are."""
    if implementation == "longspan":
        encoder = importlib.import_module("longspan").Encoder(str(model), long_text="truncate", weights=weights)
        return _Retriever(encoder, progress)
    module = importlib.import_module("sentence_transformers")
    return _Retriever(module.SentenceTransformer(str(model), device="cpu"), progress)


@dataclass(frozen=True)
class Quality:
    """Means over the queries, in percent, and the seconds that encoding took."""

    ndcg_at_10: float
    recall_at_100: float
    mrr_at_10: float
    queries: int
    documents: int
    seconds: float


def query_measures(
    scores: NDArray[np.float32],
    query_ids: Sequence[str],
    document_ids: Sequence[str],
    qrels: Mapping[str, Mapping[str, int]],
    skip_same_id: bool = False,
) -> list[tuple[float, float, float]]:
    """nDCG@10, recall@100 and MRR@10 of each query, from scores [queries, documents]."""
    rows = []
    for row, query_id in zip(scores, query_ids, strict=True):
        ranking = metrics.rank(row, document_ids, DEEP + skip_same_id)
        if skip_same_id:
            ranking = [identifier for identifier in ranking if identifier != query_id]
        gains = qrels[query_id]
        rows.append(
            (
                metrics.ndcg(ranking, gains, SHALLOW),
                metrics.recall(ranking, gains, DEEP),
                metrics.reciprocal_rank(ranking, gains, SHALLOW),
            )
        )
    return rows


def evaluate(encoder: Retriever, data: beir.RetrievalSet, skip_same_id: bool = False) -> Quality:
    """Encodes the set, searches exactly by cosine, and averages the measures over the queries.

    `skip_same_id` leaves out a document with the query's own id: in sets such as ArguAna the queries are documents.
    """
    document_ids, query_ids = list(data.documents), list(data.queries)
    start = time.perf_counter()
    documents = metrics.unit_rows(encoder.encode_documents(list(data.documents.values())))
    queries = metrics.unit_rows(encoder.encode_queries(list(data.queries.values())))
    seconds = time.perf_counter() - start

    rows: list[tuple[float, float, float]] = []
    for first in range(0, len(query_ids), QUERIES_AT_ONCE):
        block = slice(first, first + QUERIES_AT_ONCE)
        rows += query_measures(queries[block] @ documents.T, query_ids[block], document_ids, data.qrels, skip_same_id)
    mean = 100 * np.mean(rows, axis=0)
    return Quality(float(mean[0]), float(mean[1]), float(mean[2]), len(query_ids), len(document_ids), seconds)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks quality`."""
    parser.add_argument("--data", required=True, type=Path, metavar="FOLDER", help="a retrieval set in BEIR form")
    parser.add_argument("--model", metavar="FOLDER", help="model folder (default: the installed model package)")
    parser.add_argument("--split", default="test", help="which judgements: qrels/SPLIT.tsv (default: test)")
    parser.add_argument(
        "--weights",
        choices=("auto", "float32", "bfloat16", "int8"),
        default="auto",
        help="the format of Longspan's matrices (default: auto, the folder's own)",
    )
    parser.add_argument(
        "--implementation",
        choices=("longspan", "sentence-transformers"),
        default="longspan",
        help="what encodes the texts (default: longspan)",
    )
    parser.add_argument("--skip-same-id", action="store_true", help="a query never finds the document with its own id")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(options: argparse.Namespace) -> int:
    """The command `quality`."""
    data = beir.load(options.data, options.split)
    encoder = retriever(options.implementation, model_folder(options.model), not options.quiet, options.weights)
    result = evaluate(encoder, data, options.skip_same_id)
    if options.json:
        print(json.dumps({"data": options.data.name, "implementation": options.implementation, **asdict(result)}))
        return 0
    print(f"{options.data.name}, {options.implementation}: {result.documents:,} documents, {result.queries:,} queries")
    print(f"  nDCG@10     {result.ndcg_at_10:6.2f}")
    print(f"  recall@100  {result.recall_at_100:6.2f}")
    print(f"  MRR@10      {result.mrr_at_10:6.2f}")
    print(f"  encoding    {result.seconds:6.1f} s")
    return 0
