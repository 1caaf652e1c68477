"""Every method on one collection: the same chunks embedded alone, late in each setting, and blends of both."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from .chunked import (
    ROOM,
    Cut,
    Float32,
    LatePass,
    Setting,
    alone,
    blend,
    late_pass,
    neighbours,
    per_chunk,
    whole_documents,
)
from .tasks import DocumentTask, Task

Report = Callable[[str], None]


@dataclass(frozen=True)
class Collection:
    """Documents, their titles ("" for none), and what is asked of them."""

    name: str
    documents: tuple[str, ...]
    titles: tuple[str, ...]
    tasks: tuple[Task, ...]

    @property
    def finds_documents(self) -> bool:
        """Whether a task asks for documents, so that their own vectors are of use."""
        return any(isinstance(task, DocumentTask) for task in self.tasks)


@dataclass(frozen=True)
class Plan:
    """What to try: sizes of chunks in tokens, settings of the late pass, and whether blends of vectors and titles."""

    sizes: tuple[int, ...]
    settings: tuple[Setting, ...]
    blends: bool
    titles: bool

    @property
    def alone_window(self) -> int:
        """Tokens of the window that sees a chunk alone: room for all of it."""
        return max(*(setting.window for setting in self.settings), max(self.sizes) + ROOM)


@dataclass(frozen=True)
class Method:
    """Vectors to be measured. Those of whole documents have no size, and those that saw no late pass no setting."""

    name: str
    size: int | None
    setting: Setting | None
    cut: Cut
    vectors: Float32


def methods(encoder: Any, collection: Collection, plan: Plan, report: Report) -> Iterator[Method]:
    """The methods one by one. Of each size, and of whole documents, the first is what the others are compared with."""
    documents = collection.documents
    whole = one_each(len(documents))
    titles = _titles(collection, plan)
    if collection.finds_documents:
        with _timed(report, "whole documents, cut off"):
            vectors = whole_documents(encoder, documents, encoder.max_seq_length)
        yield Method("whole document, cut off", None, None, whole, vectors)
    cuts: dict[int, Cut] = {}
    naive: dict[int, Float32] = {}
    for setting in plan.settings:
        with _timed(report, f"late, {setting}"):
            late = late_pass(encoder, documents, plan.sizes, setting)
        if collection.finds_documents:
            yield Method("whole document, windows", None, setting, whole, late.documents)
        for size, cut in late.cuts.items():
            if cuts.setdefault(size, cut) is cut:  # the first pass says what the chunks are
                for method in _alone(encoder, collection, cut, size, plan, report):
                    naive.setdefault(size, method.vectors)
                    yield method
            _check_same(cuts[size], cut, size)
            yield from _late(late, size, setting, naive[size], plan.blends)
        if titles is not None:
            with _timed(report, f"late with titles, {setting}"):
                late = late_pass(encoder, documents, plan.sizes, setting, titles)
            for size, cut in late.cuts.items():
                _check_same(cuts[size], cut, size)
                yield Method("late + title", size, setting, cut, late.chunks[size])


def one_each(documents: int) -> Cut:
    """Whole documents as their own only chunks; nothing asks for their ends."""
    nothing = np.zeros(documents, dtype=np.int64)
    return Cut(nothing, nothing, np.arange(documents + 1))


def _titles(collection: Collection, plan: Plan) -> tuple[str, ...] | None:
    """The titles, if they are to be tried and there are any."""
    return collection.titles if plan.titles and any(collection.titles) else None


def _alone(encoder: Any, collection: Collection, cut: Cut, size: int, plan: Plan, report: Report) -> Iterator[Method]:
    """The chunks embedded alone: the baseline first."""
    with _timed(report, f"naive, {size} tokens"):
        vectors, bare = alone(encoder, collection.documents, cut, plan.alone_window)
    yield Method("naive", size, None, cut, vectors)
    yield Method("naive, no special tokens", size, None, cut, bare)
    if plan.blends:
        yield Method("naive + neighbours", size, None, cut, blend(vectors, neighbours(vectors, cut)))
    titles = _titles(collection, plan)
    if titles is not None:
        with _timed(report, f"naive with titles, {size} tokens"):
            vectors, _ = alone(encoder, collection.documents, cut, plan.alone_window, titles)
        yield Method("naive + title", size, None, cut, vectors)


def _late(late: LatePass, size: int, setting: Setting, naive: Float32, blends: bool) -> Iterator[Method]:
    """The chunks of one late pass, and what can be made of them without another."""
    cut, chunks = late.cuts[size], late.chunks[size]
    yield Method("late", size, setting, cut, chunks)
    if blends:
        around = per_chunk(late.documents, cut)
        yield Method("naive + late", size, setting, cut, blend(naive, chunks))
        yield Method("naive + document", size, setting, cut, blend(naive, around))
        yield Method("late + document", size, setting, cut, blend(chunks, around))


def _check_same(cut: Cut, other: Cut, size: int) -> None:
    """Windows and prompts must not move the chunks, or other chunks would be compared."""
    if not cut.same(other):
        raise AssertionError(f"the chunks of {size} tokens differ between two passes")


@contextmanager
def _timed(report: Report, what: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    report(f"{what}: {time.perf_counter() - start:.0f} s")
