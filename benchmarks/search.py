"""The command `search`: exact top-k over one corpus in several precisions, beside numpy and sentence-transformers."""

from __future__ import annotations

import argparse
import importlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import machine
from .metrics import unit_rows
from .runner import settle

BASELINE = "numpy float32"
RANK = 32  # dimensions of the subspace that the random vectors lie near
Search = Callable[[NDArray[np.float32]], NDArray[np.int64]]


def _positive(value: str) -> int:
    if not value.isdigit() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a whole number above 0")
    return int(value)


def _sizes(value: str) -> list[int]:
    return [_positive(part) for part in value.split(",")]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks search`."""
    parser.add_argument("--vectors", type=_positive, default=1_000_000, help="of the corpus (default: 1000000)")
    parser.add_argument("--dimension", type=_positive, default=384, help="of each vector (default: 384)")
    parser.add_argument("--queries", type=_sizes, default=[1, 100], metavar="N[,N…]", help="at a time (default: 1,100)")
    parser.add_argument("--top-k", type=_positive, default=10, help="how many to find (default: 10)")
    parser.add_argument("--rounds", type=_positive, default=5, help="timed rounds (default: 5)")


def run(options: argparse.Namespace) -> int:
    """The command `search`."""
    print(machine.title(machine.describe()))
    about = f"{options.vectors:,} random vectors of {options.dimension} near a subspace of {RANK}"
    print(f"{about}; top {options.top_k}", flush=True)
    corpus = _random_units(options.vectors, options.dimension, seed=0)
    searches = make_searches(corpus, options.top_k)
    load = machine.OtherLoad()
    for count in options.queries:
        queries = _random_units(count, options.dimension, seed=1)
        print(table(count, measure(searches, queries, options.rounds)), flush=True)
    print(f"\nother processes kept {load.cores():.2f} cores busy meanwhile")
    return 0


def _random_units(count: int, dimension: int, seed: int) -> NDArray[np.float32]:
    """Vectors of unit length near a subspace, as a model's are; of independent components bits would find nothing."""
    random = np.random.default_rng(seed)
    basis = np.random.default_rng(RANK).standard_normal((min(RANK, dimension), dimension), dtype=np.float32)
    vectors = random.standard_normal((count, len(basis)), dtype=np.float32) @ basis
    return unit_rows(vectors + random.standard_normal((count, dimension), dtype=np.float32))


def make_searches(corpus: NDArray[np.float32], top_k: int) -> dict[str, Search]:
    """Ways to find the best rows of the corpus, by name: each from queries [q, d] to indices [q, k]."""
    longspan: Any = importlib.import_module("longspan")
    quantize = importlib.import_module("longspan.pooling.precision").to_precision
    ranges = longspan.Ranges.of(corpus)
    int8, bits = quantize(corpus, "int8", ranges), quantize(corpus, "ubinary", None)
    stored = {
        "longspan float32": (corpus, {}),
        "longspan int8": (int8, {"corpus_precision": "int8", "ranges": ranges}),
        "longspan bits, rescored": (bits, {"corpus_precision": "ubinary"}),
        "longspan bits": (bits, {"corpus_precision": "ubinary", "rescore": False}),
    }
    searches: dict[str, Search] = {BASELINE: lambda queries: brute_force(queries, corpus, top_k)}
    try:
        searches["sentence-transformers"] = _peer(corpus, top_k)
    except ModuleNotFoundError as error:
        print(f"  skipped sentence-transformers: {error}")
    for name, (vectors, arguments) in stored.items():
        searches[name] = lambda queries, vectors=vectors, arguments=arguments: (  # type: ignore[misc]
            longspan.semantic_search(queries, vectors, top_k, **arguments).indices
        )
    return searches


def brute_force(
    queries: NDArray[np.float32], corpus: NDArray[np.float32], top_k: int, block: int = 1 << 16
) -> NDArray[np.int64]:
    """What one would write with numpy: block by block all dot products, and a partition of them beside the best."""
    scores = np.empty((len(queries), 0), np.float32)
    indices = np.empty((len(queries), 0), np.int64)
    for first in range(0, len(corpus), block):
        rows = corpus[first : first + block]
        here = np.broadcast_to(np.arange(first, first + len(rows)), (len(queries), len(rows)))
        scores, indices = np.hstack([scores, queries @ rows.T]), np.hstack([indices, here])
        best = np.argpartition(scores, -min(top_k, scores.shape[1]), axis=1)[:, -top_k:]
        scores, indices = np.take_along_axis(scores, best, 1), np.take_along_axis(indices, best, 1)
    return np.take_along_axis(indices, np.argsort(-scores, axis=1), 1)


def _peer(corpus: NDArray[np.float32], top_k: int) -> Search:
    torch: Any = importlib.import_module("torch")
    search = importlib.import_module("sentence_transformers.util").semantic_search
    tensor = torch.from_numpy(corpus)

    def find(queries: NDArray[np.float32]) -> NDArray[np.int64]:
        hits = search(torch.from_numpy(queries), tensor, top_k=top_k)
        return np.array([[hit["corpus_id"] for hit in row] for row in hits])

    return find


def measure(
    searches: dict[str, Search], queries: NDArray[np.float32], rounds: int
) -> dict[str, tuple[list[float], float]]:
    """Seconds of every round, run alternately, and the share of the baseline's finds that are found too."""
    found = {name: search(queries) for name, search in searches.items()}
    seconds: dict[str, list[float]] = {name: [] for name in searches}
    for _ in range(rounds):
        for name, search in searches.items():
            settle()
            start = time.perf_counter()
            search(queries)
            seconds[name].append(time.perf_counter() - start)
    return {name: (seconds[name], _overlap(found[name], found[BASELINE])) for name in searches}


def _overlap(found: NDArray[np.int64], expected: NDArray[np.int64]) -> float:
    return float(np.mean([np.isin(mine, right).mean() for mine, right in zip(found, expected, strict=True)]))


def table(count: int, results: dict[str, tuple[list[float], float]]) -> str:
    """The results as aligned text; a ratio is the median over the rounds."""
    width = 2 + max(map(len, results))
    lines = [f"\n{count:,} at a time".ljust(width + 1) + f"{'median':>10}  {'times as fast (least - most)':<30}found"]
    baseline: Sequence[float] = results[BASELINE][0]
    for name, (seconds, overlap) in results.items():
        ratios = [other / own for own, other in zip(seconds, baseline, strict=True)]
        spread = f"{statistics.median(ratios):6.2f}  ({min(ratios):.2f} - {max(ratios):.2f})"
        lines.append(f"{name:<{width}}{1e3 * statistics.median(seconds):>7.1f} ms  {spread:<30}{overlap:>5.0%}")
    return "\n".join(lines)
