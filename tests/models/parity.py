"""What the tests of models measured, and the table of it in docs/models.md.

The table is written where the environment has LONGSPAN_MODELS_TABLE, by `make models`: a usual run leaves no trace.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .options import OPTIONS

BEGIN, END = "<!-- table -->", "<!-- end of the table -->"


@dataclass(frozen=True)
class Parity:
    """One checkpoint beside its reference.

    Attributes:
        model_type: as its config.json has it, with the kind of positions where that makes it another family.
        name: of the configuration.
        errors: by tier, our greatest error to float64 over that of torch in float32.
        cosine: the smallest between a token's vector and that in float64.
        narrow: by format, the smallest between a text's vector and that in float64.
        options: what its layers do, of `options_of`.
    """

    model_type: str
    name: str
    errors: Mapping[str, float]
    cosine: float
    narrow: Mapping[str, float]
    options: tuple[str, ...] = ()


MEASURED: list[Parity] = []
"""Everything that this run has measured so far; read at its end."""


def smallest_cosine(matrices: Sequence[NDArray[np.float32]], exact: Sequence[NDArray[np.float64]]) -> float:
    """Over all tokens of all texts; a vector of zeros has none."""
    ours, truth = np.concatenate(matrices).astype(np.float64), np.concatenate(exact)
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(truth, axis=1)
    return float(((ours * truth).sum(1)[lengths > 0] / lengths[lengths > 0]).min())


def configuration() -> str:
    """The running test's parameters, else its name in words."""
    test = os.environ["PYTEST_CURRENT_TEST"].split("::")[-1].removesuffix(" (call)")
    found = re.search(r"\[(.*)\]", test)
    return found[1] if found else test.removeprefix("test_").replace("_", " ")


def table(measured: Iterable[Parity]) -> str:
    """Markdown: a row per model type."""
    rows = sorted(measured, key=lambda parity: parity.model_type)
    columns = {tier: tuple(parity.errors[tier] for parity in rows) for parity in rows for tier in parity.errors}
    # Tiers that differ in narrow formats alone have the same errors.
    tiers = [tier for tier, column in columns.items() if tier == next(t for t in columns if columns[t] == column)]
    formats = list(dict.fromkeys(name for parity in rows for name in parity.narrow))
    heads = [
        "`model_type`",
        "configurations",
        "positions and attention",
        *(f"error, {tier}" for tier in tiers),
        "smallest cosine",
    ]
    heads += [f"{name}, text's cosine" for name in formats]
    lines = ["| " + " | ".join(heads) + " |", "|---|---|---|" + "---:|" * (len(heads) - 3)]
    for model_type, group in groupby(rows, key=lambda parity: parity.model_type):
        mine = list(group)
        names = list(dict.fromkeys(parity.name for parity in mine))
        worst = [max(parity.errors[tier] for parity in mine) for tier in tiers]
        cosine = min(parity.cosine for parity in mine)
        options = ", ".join(name for name in OPTIONS if any(name in parity.options for parity in mine))
        cells = [f"`{model_type}`", f"{len(mine)}: {'; '.join(names)}", options, *(f"{error:.2f}" for error in worst)]
        narrow = [f"{min(parity.narrow[name] for parity in mine):.4f}" for name in formats]
        lines.append("| " + " | ".join([*cells, f"1 − {1 - cosine:.0e}", *narrow]) + " |")
    return "\n".join(lines)


def write(page: Path, measured: Iterable[Parity]) -> None:
    """Put the table into the page, between its two marks."""
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    page.write_text(f"{before}{BEGIN}\n\n{table(measured)}\n\n{END}{after}", encoding="utf-8")
