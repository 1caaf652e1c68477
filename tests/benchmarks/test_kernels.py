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
    cases = {case.name: case for case in kernels._cases("generic", "int8", 8)}
    assert cases["linear 3072 -> 768"].operations == 2 * 8 * 3072 * 768
    assert cases["attention over int8, head size 64"].operations == 4 * 8 * 8 * 768
    least, most = kernels.REPEATS
    for case in cases.values():
        entries = [len(bound[0].watched()) for bound in (case.once, case.more)]  # one for each instruction
        assert entries[1] - entries[0] == case.repeats
        assert least <= case.repeats <= most
    assert cases["attention over int8, head size 64"].repeats == most  # so few operations each
