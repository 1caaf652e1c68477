"""The rows as a Markdown table per task, and as plain JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from .bootstrap import LEVEL
from .compare import Row
from .tasks import Task


def table(task: Task, rows: Sequence[Row]) -> str:
    """Markdown, smallest chunks first; a difference is bold where its interval holds no zero."""
    heads = [
        "chunk",
        "method",
        "window",
        "overlap",
        *(head for name in task.shown for head in (name, f"change ({LEVEL} %)")),
    ]
    lines = [
        f"### {task.name}: {len(task.questions):,} questions",
        "",
        _line([*heads, "likeness"]),
        _line(["---:", "---", *["---:"] * (len(heads) - 1)]),
    ]
    for row in sorted(rows, key=lambda row: row.size or 1 << 30):
        cells = [
            str(row.size or "–"),
            row.method,
            str(row.setting.window) if row.setting else "–",
            f"{row.setting.overlap} %" if row.setting else "–",
        ]
        for name in task.shown:
            cells += [f"{row.means[name]:.1f}", change(row, name)]
        lines.append(_line([*cells, "–" if row.likeness is None else f"{row.likeness:.2f}"]))
    return "\n".join(lines)


def change(row: Row, measure: str) -> str:
    """The difference to the baseline and its interval; bold where it is not just noise."""
    if measure not in row.changes:
        return "–"
    mean, low, high = row.changes[measure]
    text = f"{mean:+.1f}"
    return f"{f'**{text}**' if low > 0 or high < 0 else text} ({low:+.1f} to {high:+.1f})"


def record(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows as JSON values."""
    return [asdict(row) for row in rows]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
