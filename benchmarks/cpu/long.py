"""Workloads of one long text: how many tokens a second, and how much memory, each peer in a process of its own."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
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


def run(
    setup: Setup,
    model: Path,
    shape: str,
    lengths: Sequence[int],
    names: Sequence[str],
    beside: Mapping[str, str] | None = None,
) -> list[Task]:
    """A task a length. Peers of one precision run alternately, and only they are in memory together.

    `beside` has, by precision, a peer in another one: it also runs alternately with these where it is among `names`.
    """
    beside = {precision: name for precision, name in (beside or {}).items() if name in names}
    return [_one(setup, model, shape, length, names, beside) for length in lengths]


def _one(setup: Setup, model: Path, shape: str, length: int, names: Sequence[str], beside: Mapping[str, str]) -> Task:
    source = Source(model, length, setup.exports / f"{model.name}-exports")
    document = _document(source)
    reference = _reference(setup, source, document)
    results: list[runner.Measurement] = []
    others: dict[str, runner.Measurement] = {}
    for precision in PRECISIONS:
        group = [name for name in names if peers.PEERS[name][1] == precision]
        if group and precision in beside:
            group.append(beside[precision])
        for result in _alternately(setup, group, source, document, reference):
            if result.precision == precision:
                results.append(result)
            else:
                others[precision] = result
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    title = f"{shape}, one text of {length:,} tokens"
    return setup.task(title, results, operations(config, [length]), others)


def _alternately(
    setup: Setup, names: Sequence[str], source: Source, document: list[str], reference: NDArray[np.float32] | None
) -> list[runner.Measurement]:
    """Runs these beside each other, with the peaks of their processes."""
    with _workers(setup, names, source) as workers:
        measured = runner.measure(
            workers, document, source.max_length, rounds=setup.rounds, reference=reference, report=setup.report
        )
        for result in measured:
            worker = next(worker for worker in workers if worker.name == result.name)
            result.peak_memory_bytes = worker.peak_memory_bytes()
    return measured


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
    if source.max_length > REFERENCE_TOKENS:
        setup.report_unchecked(f"{source.max_length:,} tokens would take {REFERENCE} too long")
        return None
    with _workers(setup, [REFERENCE], source) as workers:
        if workers:
            return workers[0].encode(document)
    setup.report_unchecked(f"{REFERENCE} cannot run")
    return None


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
