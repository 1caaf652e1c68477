"""`python -m benchmarks kernels`: what is repeated is what is counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks import kernels
from benchmarks.__main__ import main

from longspan import _csrc


def test_a_line_for_each_product_and_attention(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "kernels.json"
    tier = _csrc.tiers()[-1]
    arguments = ["--tiers", tier, "--weights", "float32,int8", "--tokens", "64", "--rounds", "1"]
    assert main(["kernels", *arguments, "--output", str(output)]) == 0
    saved = json.loads(output.read_text())
    products, lines = len(kernels.SHAPES), capsys.readouterr().out.splitlines()
    assert [row["weights"] for row in saved["rows"]] == ["float32"] * (products + 1) + ["int8"] * (products + 2)
    assert {row["tier"] for row in saved["rows"]} == {tier}
    assert all(row["ceiling"] > 0 for row in saved["rows"])
    assert sum("attention" in line for line in lines) == 3
    assert saved["machine"]["cores"] >= 1


def test_operations_are_those_of_one_instruction() -> None:
    named = {name: (operations, bodies) for name, operations, bodies in kernels._cases("generic", "int8", 8)}
    assert named["linear 3072 -> 768"][0] == 2 * 8 * 3072 * 768
    assert named["attention over int8, head size 64"][0] == 4 * 8 * 8 * 768
    for _, (once, more) in named.values():
        assert len(more[0].watched()) - len(once[0].watched()) == kernels.REPEATS  # an entry for each instruction
