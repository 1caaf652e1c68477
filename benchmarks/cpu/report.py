"""What was measured, as a table, as JSON and as a plot."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .. import machine, peers, plot
from ..runner import Measurement

PRECISIONS = ("float32", "bfloat16", "int8")


@dataclass(frozen=True)
class Task:
    """One thing that everybody was asked to do, and what came of it."""

    title: str
    results: Sequence[Measurement]
    operations: float = 0.0  # of one run; 0 where nothing is said of ceilings
    ceilings: Mapping[str, float] = field(default_factory=dict)  # operations per second by precision
    free: frozenset[str] = frozenset()  # who did not keep to the tier that was asked for: no ratio is to them

    def precisions(self) -> list[str]:
        """Those that somebody was measured in, in their order."""
        return [name for name in PRECISIONS if any(result.precision == name for result in self.results)]

    def fastest_first(self, precision: str) -> list[Measurement]:
        """The results in one precision."""
        mine = [result for result in self.results if result.precision == precision]
        return sorted(mine, key=lambda result: statistics.median(result.seconds))

    def baseline(self, precision: str) -> Measurement | None:
        """The fastest peer in this precision, which ratios are to."""
        mine = self.fastest_first(precision)
        return next((result for result in mine if not peers.own(result.name) and result.name not in self.free), None)

    def share(self, result: Measurement) -> float | None:
        """Of the ceiling in its precision, tokenising included; None without a ceiling."""
        ceiling = self.ceilings.get(result.precision)
        if not ceiling or not self.operations:
            return None
        return self.operations / statistics.median(result.seconds) / ceiling


HEADER = ("", "tokens/s", "seconds", "ceiling", "to the best peer", "cosine min / mean", "query p50", "peak MB")


def table(task: Task) -> str:
    """A block a precision, fastest first; columns about which nothing is known are left out."""
    rows: list[tuple[str, ...]] = [HEADER]
    for precision in task.precisions():
        rows.append((precision, *[""] * (len(HEADER) - 1)))
        baseline = task.baseline(precision)
        rows += [_row(task, result, baseline) for result in task.fastest_first(precision)]
    columns = [column for column in zip(*rows, strict=True) if column[0] == "" or any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in zip(*columns, strict=True)
    ]
    found = [f"{name} {task.ceilings[name] / 1e9:,.0f} GFLOP/s" for name in PRECISIONS if name in task.ceilings]
    foot = [f"ceilings, register-only loops on all cores: {', '.join(found)}"] if found and task.operations else []
    return "\n".join(["", task.title, *(line.rstrip() for line in lines), *foot])


def _row(task: Task, result: Measurement, baseline: Measurement | None) -> tuple[str, ...]:
    share = task.share(result)
    return (
        f"  {result.name}{' *' if result.name in task.free else ''}",
        f"{result.tokens_per_second:,.0f}" if result.tokens else "",
        f"{statistics.median(result.seconds):.3f}",
        f"{share:.0%}" if share is not None else "",
        _ratio(result, baseline),
        f"{result.cosine_min:.5f} / {result.cosine_mean:.5f}" if result.cosine_min is not None else "",
        f"{result.latency_p50_ms:.2f} ms" if result.latency_p50_ms is not None else "",
        f"{result.peak_memory_bytes / 2**20:,.0f}" if result.peak_memory_bytes is not None else "",
    )


def _ratio(result: Measurement, baseline: Measurement | None) -> str:
    if baseline is None:
        return "no peer"
    if result is baseline:
        return "the best peer"
    ratio, low, high = result.ratios(baseline)
    return f"{ratio:.2f} ({low:.2f} - {high:.2f})"


def save(path: Path, description: dict[str, Any], options: Mapping[str, Any], tasks: Sequence[Task]) -> None:
    """Writes the JSON, and a plot a task beside it if matplotlib is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"machine": description, "options": options, "tasks": [_record(task) for task in tasks]}
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten: {path}")
    for number, task in enumerate(tasks, start=1):
        image = path.with_name(f"{path.stem}-{number}.png" if len(tasks) > 1 else f"{path.stem}.png")
        try:
            plot.bars(_bars(task), _axis(task), task.title, machine.title(description), image)
        except ImportError as error:
            print(f"no plot: {error}")
            return
        print(f"written: {image}")


def _record(task: Task) -> dict[str, Any]:
    results = []
    for result in task.results:
        baseline = task.baseline(result.precision)
        results.append(
            asdict(result)
            | {
                "latencies": None,
                "latency_p50_ms": result.latency_p50_ms,
                "tokens_per_second": result.tokens_per_second,
                "share_of_ceiling": task.share(result),
                "baseline": baseline.name if baseline is not None else None,
                "ratio": result.ratios(baseline) if baseline is not None else None,
            }
        )
    return {
        "title": task.title,
        "operations": task.operations,
        "ceilings": dict(task.ceilings),
        "results": results,
    }


def _bars(task: Task) -> list[plot.Bar]:
    bars = []
    for precision in task.precisions():
        baseline = task.baseline(precision)
        for result in task.fastest_first(precision):
            value = result.tokens_per_second if result.tokens else statistics.median(result.seconds)
            figure = f"{value:,.0f}" if result.tokens else f"{value:.2f}"
            note = f"{figure}   {_ratio(result, baseline)}"
            bars.append(plot.Bar(f"{result.name} ({precision})", value, note, peers.own(result.name)))
    return bars


def _axis(task: Task) -> str:
    what = "tokens per second" if any(result.tokens for result in task.results) else "seconds"
    return f"{what}; speed as a multiple of the best peer's in that precision (least - most)"
