"""Draws measurements: horizontal bars, and lines over a common axis."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .runner import Measurement

OWN, OTHERS, TEXT = "#1f5fa8", "#b9c2cc", "#2b2f33"
LINES = (OWN, "#d98324", "#4b9b62", "#8d5aa6")


def bars(results: Sequence[Measurement], baseline: Measurement, title: str, footer: str, path: Path) -> None:
    """Tokens per second, fastest on top; beside each bar the figure and the ratio to the baseline."""
    pyplot = _pyplot()
    ordered = sorted(results, key=lambda result: result.tokens_per_second)
    speeds = [result.tokens_per_second for result in ordered]
    figure, axes = pyplot.subplots(figsize=(9, 1.3 + 0.48 * len(ordered)), layout="constrained")
    colors = [OWN if result.name.startswith("longspan") else OTHERS for result in ordered]
    axes.barh(range(len(ordered)), speeds, color=colors, height=0.68)
    axes.set_yticks(range(len(ordered)), [f"{result.name} ({result.precision})" for result in ordered])
    for place, result in enumerate(ordered):
        ratio, low, high = result.ratios(baseline)
        note = "  baseline" if result is baseline else f"  {ratio:.2f}× ({low:.2f}–{high:.2f})"
        axes.text(speeds[place], place, f" {speeds[place]:,.0f}{note}", va="center", color=TEXT, fontsize=9)
    axes.set_xlim(0, max(speeds) * 1.45)  # room for the notes
    axes.set_xlabel("tokens per second, median of the rounds; ratio to the baseline (least–most)", color=TEXT)
    axes.set_title(title, loc="left", color=TEXT, fontsize=11)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
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
