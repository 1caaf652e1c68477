"""`python -m benchmarks kernels`: what is repeated is what is counted, and torch does the same work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.__main__ import main
from benchmarks.kernels import command
from benchmarks.kernels.bodies import Bodies
from benchmarks.kernels.torch_kernels import TorchKernels, _kernel
from benchmarks.kernels.work import SHAPES, Work, all_work

from longspan import _csrc


def test_a_line_for_each_product_and_attention(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "kernels.json"
    arguments = ["--tiers", "generic", "--weights", "float32,int8", "--tokens", "64", "--rounds", "1"]
    assert main(["kernels", *arguments, "--output", str(output)]) == 0
    saved = json.loads(output.read_text())
    lines = capsys.readouterr().out.splitlines()
    assert [row["weights"] for row in saved["rows"]] == ["float32"] * (len(SHAPES) + 1) + ["int8"] * (len(SHAPES) + 2)
    assert {row["tier"] for row in saved["rows"]} == {"generic"}
    assert all(row["ceiling"] > 0 and row["torch"] is None for row in saved["rows"])
    assert sum("attention" in line for line in lines) == 3
    assert any("torch cannot be held to generic" in line for line in lines)
    assert saved["machine"]["cores"] >= 1


@pytest.mark.parametrize("instruction", ["linear", "attention"])
def test_longspan_and_torch_are_measured_in_turns(instruction: str) -> None:
    tier = _csrc.tiers()[-1]
    if tier == "generic":
        pytest.skip("torch cannot be held to less than AVX2")
    work = next(work for work in all_work("float32", 32) if work.instruction == instruction)
    torch = TorchKernels(tier)
    try:
        row = command.measure(tier, work, torch, rounds=2)
    finally:
        torch.close()
    assert row.torch is not None
    assert row.torch > 0
    assert row.rate > 0
    assert f"{row.torch / row.ceiling:.0%}" in command.line(row)


def test_operations_are_those_of_one_instruction() -> None:
    works = {work.name: work for work in all_work("int8", 8)}
    assert works["linear 3072 -> 768"].operations == 2 * 8 * 3072 * 768
    assert works["attention over int8, head size 64"].operations == 4 * 8 * 8 * 768
    for work in works.values():
        bodies = Bodies("generic", work, repeats=5)
        entries = [len(bound[0].watched()) for bound in (bodies.once, bodies.more)]  # one for each instruction
        assert entries[1] - entries[0] == 5


@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8"])
def test_torch_multiplies_the_same_shapes(weights: str) -> None:
    run = _kernel(Work("linear", weights, 3, 64, 32))
    assert run is not None
    assert tuple(run().shape) == (3, 32)


def test_torch_attends_in_the_same_shape_but_not_over_bytes() -> None:
    run = _kernel(Work("attention", "bfloat16", 5, 768, 768))
    assert run is not None
    assert tuple(run().shape) == (1, 12, 5, 64)
    assert _kernel(Work("attention", "int8", 5, 768, 768, int8_attention=True)) is None
