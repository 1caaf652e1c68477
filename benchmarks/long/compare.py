"""Measures the methods on a collection's tasks, and says how much each differs from its baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..metrics import unit_rows
from .bootstrap import intervals
from .chunked import Setting, likeness
from .methods import Collection, Plan, Report, methods
from .tasks import DocumentTask, Measures, Task


@dataclass(frozen=True)
class Row:
    """One method on one task, in percent.

    Attributes:
        task, method: names.
        size: tokens of a chunk at most; None for whole documents.
        setting: of the late pass; None for methods without one.
        likeness: the mean cosine between two chunks of one document; None for whole documents.
        means: by measure, over the questions.
        changes: by measure, the mean difference to the baseline and both ends of its interval. The baseline is the same
            chunks embedded alone, and for whole documents the documents cut off. It has no changes itself.
    """

    task: str
    method: str
    size: int | None
    setting: Setting | None
    likeness: float | None
    means: dict[str, float]
    changes: dict[str, tuple[float, float, float]]


def compare(encoder: Any, collection: Collection, plan: Plan, seed: int, resamples: int, report: Report) -> list[Row]:
    """All rows of a collection; `seed` and `resamples` are the bootstrap's."""
    questions = [unit_rows(encoder.encode_query(task.questions)) for task in collection.tasks]
    baselines: dict[tuple[str, int | None], Measures] = {}
    rows = []
    for method in methods(encoder, collection, plan, report):
        alike = None if method.size is None else likeness(method.vectors, method.cut)
        for task, vectors in zip(collection.tasks, questions, strict=True):
            if method.size is None and not isinstance(task, DocumentTask):
                continue
            measured = task.measure(method.cut, method.vectors, vectors)
            baseline = baselines.setdefault((task.name, method.size), measured)
            changes = {} if baseline is measured else _changes(task, measured - baseline, seed, resamples)
            means = dict(zip(task.measures, (100 * measured.mean(axis=0)).tolist(), strict=True))
            rows.append(Row(task.name, method.name, method.size, method.setting, alike, means, changes))
    return rows


def _changes(task: Task, differences: Measures, seed: int, resamples: int) -> dict[str, tuple[float, float, float]]:
    ends = 100 * intervals(differences, task.groups, seed, resamples)
    means = 100 * differences.mean(axis=0)
    return {
        name: (float(mean), float(low), float(high))
        for name, mean, (low, high) in zip(task.measures, means, ends, strict=True)
    }
