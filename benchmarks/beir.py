"""Reads retrieval sets in BEIR form: `corpus.jsonl`, `queries*.jsonl` and `qrels/*.tsv` in one folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class DataError(ValueError):
    """A folder that is not a retrieval set, or a line in it that cannot be read; the message says which."""


@dataclass(frozen=True)
class RetrievalSet:
    """Documents, the queries that have judgements, and those judgements."""

    documents: dict[str, str]  # id -> title and text
    queries: dict[str, str]  # id -> text
    qrels: dict[str, dict[str, int]]  # query id -> document id -> gain
    titles: dict[str, str] = field(default_factory=dict)  # id -> title, where there is one


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file.

    Lines end at "\\n" only: `str.splitlines` also cuts at U+2028 and the like, which occur inside texts.
    """
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}: not JSON ({error})") from error
        if not isinstance(record, dict):
            raise DataError(f"{path}:{number}: expected an object, found {type(record).__name__}")
        yield record


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Judgements from a tab-separated file with the header `query-id corpus-id score`."""
    qrels: dict[str, dict[str, int]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        cells = line.rstrip("\r").split("\t")
        if cells == [""] or (number == 1 and not cells[-1].lstrip("-").isdigit()):
            continue
        if len(cells) != 3 or not cells[2].lstrip("-").isdigit():
            raise DataError(f"{path}:{number}: expected query id, document id and a whole number, tab-separated")
        qrels.setdefault(cells[0], {})[cells[1]] = int(cells[2])
    return qrels


def document_text(record: dict[str, Any]) -> str:
    """Title and text with one space between, as BEIR joins them."""
    return f"{record.get('title') or ''} {record['text']}".strip()


def load(folder: Path, split: str = "test") -> RetrievalSet:
    """Reads the set in `folder`; only queries with a judgement in `split` are kept."""
    corpus, qrels_file = folder / "corpus.jsonl", folder / "qrels" / f"{split}.tsv"
    queries_file = folder / f"queries_{split}.jsonl"
    if not queries_file.is_file():
        queries_file = folder / "queries.jsonl"
    for path in (corpus, qrels_file, queries_file):
        if not path.is_file():
            raise DataError(
                f"{folder} is not a BEIR folder with split {split!r}: {path.relative_to(folder)} is missing"
            )
    qrels = read_qrels(qrels_file)
    try:
        records = {str(record["_id"]): record for record in read_jsonl(corpus)}
        documents = {key: document_text(record) for key, record in records.items()}
        queries = {str(record["_id"]): str(record["text"]) for record in read_jsonl(queries_file)}
    except KeyError as error:
        raise DataError(f"{folder}: a record lacks the field {error}") from error
    judged = {key: text for key, text in queries.items() if key in qrels}
    if not documents or not judged:
        raise DataError(f"{folder}: no documents, or no queries with a judgement in split {split!r}")
    titles = {key: str(record["title"]) for key, record in records.items() if record.get("title")}
    return RetrievalSet(documents, judged, {key: qrels[key] for key in judged}, titles)
