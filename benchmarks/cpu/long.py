"""Workloads of one long text: how many tokens a second, and how much memory, each peer in a process of its own."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .. import peers, runner, texts
from ..batches import Batcher
from ..peers import Source
from ..worker import Worker
from .ceilings import operations
from .report import PRECISIONS, Task
from .setup import Setup

REFERENCE = "sentence-transformers"
REFERENCE_TOKENS = 1 << 15  # above that its float32 would take longer than all the others together


def run(setup: Setup, model: Path, shape: str, lengths: Sequence[int], names: Sequence[str]) -> list[Task]:
    """A task a length. Peers of one precision run alternately, and only they are in memory together."""
    return [_one(setup, model, shape, length, names) for length in lengths]


def _one(setup: Setup, model: Path, shape: str, length: int, names: Sequence[str]) -> Task:
    source = Source(model, length, setup.exports / f"{model.name}-exports")
    document = _document(source)
    reference = _reference(setup, source, document) if length <= REFERENCE_TOKENS else None
    results: list[runner.Measurement] = []
    for precision in PRECISIONS:
        with _workers(setup, [name for name in names if peers.PEERS[name][1] == precision], source) as workers:
            measured = runner.measure(
                workers, document, length, rounds=setup.rounds, reference=reference, report=setup.report
            )
            for result in measured:
                worker = next(worker for worker in workers if worker.name == result.name)
                result.peak_memory_bytes = worker.peak_memory_bytes()
            results += measured
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    return setup.task(f"{shape}, one text of {length:,} tokens", results, operations(config, [length]))


def _document(source: Source) -> list[str]:
    """Real prose of more tokens than are read: it is cut at the wanted length."""
    batcher = Batcher(source.model, source.max_length)
    parts: list[str] = []
    tokens = 0
    paragraphs = texts.paragraphs()
    counts = [len(ids) - 2 for ids in batcher.tokenize(paragraphs)]
    for paragraph, count in itertools.cycle(zip(paragraphs, counts, strict=True)):
        if tokens > source.max_length:
            return [" ".join(parts)]
        parts.append(paragraph)
        tokens += count
    raise AssertionError("unreachable: there is always another paragraph")


def _reference(setup: Setup, source: Source, document: list[str]) -> NDArray[np.float32] | None:
    with _workers(setup, [REFERENCE], source) as workers:
        return workers[0].encode(document) if workers else None


@contextlib.contextmanager
def _workers(setup: Setup, names: Sequence[str], source: Source) -> Iterator[list[Worker]]:
    """A process each; they end with the block."""
    with contextlib.ExitStack() as stack:
        workers = []
        for name in names:
            worker = setup.try_to_make(name, lambda name: Worker(name, source))
            if worker is not None:
                stack.callback(worker.close)
                workers.append(worker)
        yield workers
