"""Draws how far each method is from its baseline, with the interval of chance."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..plot import OTHERS, OWN, TEXT
from .bootstrap import LEVEL
from .compare import Row

MEASURE = "nDCG@10"  # every task has it


def differences(rows: Sequence[Row], title: str, footer: str, path: Path) -> None:
    """A panel per size of chunk, a line per method and setting; an interval that holds zero is grey."""
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    sizes = sorted({row.size for row in rows if row.size is not None})
    labels = list(dict.fromkeys(_label(row) for row in rows if row.size is not None and row.changes))
    shape = (3 + 2.4 * len(sizes), 1.4 + 0.27 * len(labels))
    figure, panels = pyplot.subplots(
        1, len(sizes), figsize=shape, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for axes, size in zip(panels[0], sizes, strict=True):
        mine = [row for row in rows if row.size == size]
        baseline = next(row for row in mine if not row.changes)
        axes.axvline(0, color=OTHERS, linewidth=1)
        for row in mine:
            if row.changes:
                mean, low, high = row.changes[MEASURE]
                color = OTHERS if low <= 0 <= high else OWN
                place = len(labels) - 1 - labels.index(_label(row))
                axes.plot([low, high], [place, place], color=color, linewidth=2, solid_capstyle="round")
                axes.plot([mean], [place], "o", color=color, markersize=5)
        axes.set_title(f"{size} tokens, naive {baseline.means[MEASURE]:.1f}", fontsize=9, color=TEXT)
        axes.set_yticks(range(len(labels)), labels[::-1], fontsize=8)
        axes.tick_params(length=0, colors=TEXT, labelsize=8)
        axes.spines[["top", "right", "left"]].set_visible(False)
    figure.suptitle(title, x=0.01, ha="left", color=TEXT, fontsize=11)
    note = f"{MEASURE}, points above or below the same chunks embedded alone, {LEVEL} % intervals\n{footer}"
    figure.supxlabel(note, fontsize=7.5, color="#6b7278", x=0.01, ha="left")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _label(row: Row) -> str:
    return f"{row.method}, {row.setting.window} / {row.setting.overlap} %" if row.setting else row.method
