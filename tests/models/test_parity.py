"""The page of models: made of what was measured, and complete."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

from longspan.models import FAMILIES

from .parity import BEGIN, END, Parity, smallest_cosine, table, write

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
MEASURED = [
    Parity(
        *("llama", "yarn", {"generic": 1.25, "v3": 0.5, "v4": 0.5}, 1 - 3e-14, {"bfloat16": 0.9999, "int8": 0.98}),
        ("causal", "YaRN", "RoPE"),
    ),
    Parity("bert", "plain", {"generic": 0.75, "v3": 0.25, "v4": 0.25}, 1 - 1e-13, {"bfloat16": 0.9995, "int8": 0.999}),
    Parity(
        "llama",
        "plain",
        {"generic": 0.5, "v3": 1.75, "v4": 1.75},
        1 - 2e-13,
        {"bfloat16": 0.9998, "int8": 0.99},
        ("RoPE", "both sides"),
    ),
]


def test_a_row_per_model_type() -> None:
    assert table(MEASURED).splitlines()[2:] == [
        "| `bert` | 1: plain |  | 0.75 | 0.25 | 1 − 1e-13 | 0.9995 | 0.9990 |",
        "| `llama` | 2: yarn; plain | RoPE, YaRN, causal, both sides | 1.25 | 1.75 | 1 − 2e-13 | 0.9998 | 0.9800 |",
    ]


def test_only_the_table_changes(tmp_path: Path) -> None:
    page = tmp_path / "models.md"
    page.write_text(f"# Models\n{BEGIN}\nold\n{END}\nmore\n", encoding="utf-8")
    write(page, MEASURED)
    write(page, MEASURED)
    assert page.read_text(encoding="utf-8") == f"# Models\n{BEGIN}\n\n{table(MEASURED)}\n\n{END}\nmore\n"


def test_smallest_cosine() -> None:
    exact = [np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([[3.0, 4.0]])]
    ours = [np.array([[2, 0], [0, 0]], np.float32), np.array([[4, 3]], np.float32)]
    assert smallest_cosine(ours, exact) == pytest.approx(24 / 25)


@pytest.mark.skipif("LONGSPAN_MODELS_TABLE" in os.environ, reason="the page is being written")
def test_the_page_has_every_family() -> None:
    _, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    rows, after = rest.split(END)
    measured = re.findall(r"^\| `([\w-]+)` \| \d+: ", rows, re.MULTILINE)
    equal = re.findall(r"`([\w-]+)`", re.findall(r"To the bit: (.*?)\.\n", after, re.DOTALL)[0])
    assert {*measured, *equal} >= set(FAMILIES)
