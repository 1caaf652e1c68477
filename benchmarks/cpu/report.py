"""What was measured, as a table, as JSON and as a plot."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .. import machine, peers, plot
from ..runner import Measurement, Ratios

PRECISIONS = ("float32", "bfloat16", "int8")


@dataclass(frozen=True)
class Task:
    """One thing that everybody was asked to do, and what came of it."""

    title: str
    results: Sequence[Measurement]
    operations: float = 0.0  # of one run; 0 where nothing is said of ceilings
    ceilings: Mapping[str, float] = field(default_factory=dict)  # operations per second by precision
    free: frozenset[str] = frozenset()  # who did not keep to the tier that was asked for: no ratio is to them
    beside: Mapping[str, Measurement] = field(default_factory=dict)  # by precision, who ran with these in another one

    def precisions(self) -> list[str]:
        """Those that somebody was measured in, in their order."""
        return [name for name in PRECISIONS if any(result.precision == name for result in self.results)]

    def fastest_first(self, precision: str) -> list[Measurement]:
        """The results in one precision."""
        mine = [result for result in self.results if result.precision == precision]
        return sorted(mine, key=lambda result: statistics.median(result.seconds))

    def baseline(self, precision: str) -> Measurement | None:
        """The fastest peer in this precision, which ratios are to."""
        return next(iter(self._comparable(precision)), None)

    def latency_baseline(self, precision: str) -> Measurement | None:
        """The peer in this precision that answers a query soonest, which ratios of latencies are to."""
        answered = [result for result in self._comparable(precision) if result.latencies]
        return min(answered, key=lambda result: statistics.median(result.latencies), default=None)

    def across(self, precision: str) -> Measurement | None:
        """The peer in another precision that those in this one are compared with too."""
        other = self.beside.get(precision)
        return other if other is not None and other.name not in self.free else None

    def _comparable(self, precision: str) -> list[Measurement]:
        """Peers in this precision that ratios may be to, fastest first."""
        mine = self.fastest_first(precision)
        return [result for result in mine if not peers.own(result.name) and result.name not in self.free]

    def share(self, result: Measurement) -> float | None:
        """Of the ceiling in its precision, tokenising included; None without a ceiling."""
        ceiling = self.ceilings.get(result.precision)
        if not ceiling or not self.operations:
            return None
        return self.operations / statistics.median(result.seconds) / ceiling


HEADER = (
    *("", "tokens/s", "seconds", "ceiling", "to the best peer", "to another precision", "cosine min / mean"),
    *("query p50", "to the best p50 of a peer", "peak MB"),
)


def table(task: Task) -> str:
    """A block a precision, fastest first; columns about which nothing is known are left out."""
    rows: list[tuple[str, ...]] = [HEADER]
    for precision in task.precisions():
        rows.append((precision, *[""] * (len(HEADER) - 1)))
        rows += [_row(task, result) for result in task.fastest_first(precision)]
        if precision in task.beside:
            rows.append(_row_beside(task, precision))
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


def _row(task: Task, result: Measurement) -> tuple[str, ...]:
    across, quickest = task.across(result.precision), task.latency_baseline(result.precision)
    return (
        *_figures(task, result),
        _ratio(result, task.baseline(result.precision), Measurement.ratios),
        _ratio(result, across, Measurement.ratios) if across is not None else "",
        _cosines(result),
        f"{result.latency_p50_ms:.2f} ms" if result.latency_p50_ms is not None else "",
        _ratio(result, quickest, Measurement.latency_ratios) if result.latencies else "",
        _peak(result),
    )


def _row_beside(task: Task, precision: str) -> tuple[str, ...]:
    """Whom those in this precision are compared with in another one: it ran with them, once more."""
    result = task.beside[precision]
    return *_figures(task, result), "", f"in {result.precision}", _cosines(result), "", "", _peak(result)


def _figures(task: Task, result: Measurement) -> tuple[str, ...]:
    share = task.share(result)
    return (
        f"  {result.name}{' *' if result.name in task.free else ''}",
        f"{result.tokens_per_second:,.0f}" if result.tokens else "",
        f"{statistics.median(result.seconds):.3f}",
        f"{share:.0%}" if share is not None else "",
    )


def _cosines(result: Measurement) -> str:
    return f"{result.cosine_min:.5f} / {result.cosine_mean:.5f}" if result.cosine_min is not None else ""


def _peak(result: Measurement) -> str:
    return f"{result.peak_memory_bytes / 2**20:,.0f}" if result.peak_memory_bytes is not None else ""


def _ratio(
    result: Measurement, baseline: Measurement | None, compare: Callable[[Measurement, Measurement], Ratios]
) -> str:
    if baseline is None:
        return "no peer"
    if result is baseline:
        return "the best peer"
    ratio, low, high = compare(result, baseline)
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
    return {
        "title": task.title,
        "operations": task.operations,
        "ceilings": dict(task.ceilings),
        "results": [_measured(task, result) | _compared(task, result) for result in task.results],
        "beside": {precision: _measured(task, result) for precision, result in task.beside.items()},
    }


def _measured(task: Task, result: Measurement) -> dict[str, Any]:
    return asdict(result) | {
        "latency_p50_ms": result.latency_p50_ms,
        "tokens_per_second": result.tokens_per_second,
        "share_of_ceiling": task.share(result),
    }


def _compared(task: Task, result: Measurement) -> dict[str, Any]:
    baseline, across = task.baseline(result.precision), task.across(result.precision)
    quickest = task.latency_baseline(result.precision) if result.latencies else None
    return {
        "baseline": baseline.name if baseline is not None else None,
        "ratio": result.ratios(baseline) if baseline is not None else None,
        "latency_baseline": quickest.name if quickest is not None else None,
        "latency_ratio": result.latency_ratios(quickest) if quickest is not None else None,
        "across": across.name if across is not None else None,
        "ratio_across": result.ratios(across) if across is not None else None,
    }


def _bars(task: Task) -> list[plot.Bar]:
    bars = []
    for precision in task.precisions():
        baseline = task.baseline(precision)
        for result in task.fastest_first(precision):
            value = result.tokens_per_second if result.tokens else statistics.median(result.seconds)
            figure = f"{value:,.0f}" if result.tokens else f"{value:.2f}"
            note = f"{figure}   {_ratio(result, baseline, Measurement.ratios)}"
            bars.append(plot.Bar(f"{result.name} ({precision})", value, note, peers.own(result.name)))
    return bars


def _axis(task: Task) -> str:
    what = "tokens per second" if any(result.tokens for result in task.results) else "seconds"
    return f"{what}; speed as a multiple of the best peer's in that precision (least - most)"
