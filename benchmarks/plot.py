"""Draws measurements: horizontal bars, and lines over a common axis."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

OWN, OTHERS, TEXT = "#1f5fa8", "#b9c2cc", "#2b2f33"
LINES = (OWN, "#d98324", "#4b9b62", "#8d5aa6")


class Bar(NamedTuple):
    """One row of a plot."""

    label: str
    value: float
    note: str  # beside the bar
    own: bool  # in the colour of what this project made


def bars(rows: Sequence[Bar], label: str, title: str, footer: str, path: Path) -> None:
    """Horizontal bars, the first on top; `label` is of their axis."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(9, 1.3 + 0.48 * len(rows)), layout="constrained")
    axes.barh(
        range(len(rows)), [row.value for row in rows], color=[OWN if row.own else OTHERS for row in rows], height=0.68
    )
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.invert_yaxis()
    for place, row in enumerate(rows):
        axes.text(row.value, place, f" {row.note}", va="center", color=TEXT, fontsize=9)
    axes.set_xlim(0, max(row.value for row in rows) * 1.45)  # room for the notes
    axes.set_xlabel(label, color=TEXT, loc="left")
    axes.set_title(title, loc="left", color=TEXT, fontsize=11)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.locator_params(axis="x", nbins=6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    _finish(pyplot, figure, axes, footer, path)


def lines(
    curves: Mapping[str, Sequence[tuple[float, float]]], labels: tuple[str, str], title: str, footer: str, path: Path
) -> None:
    """Points by name, from zero up; `labels` are of the axes."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(9, 4.5), layout="constrained")
    for color, (name, points) in zip(LINES * len(curves), curves.items(), strict=False):
        axes.plot(*zip(*points, strict=True), color=color, linewidth=1.2, label=name)
    axes.set_xlabel(labels[0], color=TEXT)
    axes.set_ylabel(labels[1], color=TEXT)
    axes.set_ylim(bottom=0)
    axes.set_title(title, loc="left", color=TEXT, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, labelcolor=TEXT)
    _finish(pyplot, figure, axes, footer, path)


def _pyplot() -> Any:
    importlib.import_module("matplotlib").use("Agg")
    return importlib.import_module("matplotlib.pyplot")


def _finish(pyplot: Any, figure: Any, axes: Any, footer: str, path: Path) -> None:
    axes.tick_params(length=0, colors=TEXT)
    figure.supxlabel(footer, fontsize=7.5, color="#6b7278", x=0.01, ha="left")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
