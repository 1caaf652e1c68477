"""`python -m benchmarks kernels`: what is repeated is what is counted, and torch does the same work."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from benchmarks.__main__ import main
from benchmarks.kernels import command
from benchmarks.kernels.bodies import Bodies
from benchmarks.kernels.torch_kernels import TorchKernels, _attention, _linear
from benchmarks.kernels.work import SHAPES, Work, all_work


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


class Clock:
    """Stands in for Longspan's bodies and for torch: notes who is asked, and takes no time of its own."""

    why = ""

    def __init__(self, *_: object) -> None:
        self.asked: list[str] = []

    def both(self) -> tuple[float, float]:
        self.asked.append("longspan")
        return 0.25, 0.75

    def seconds(self, work: Work, repeats: int) -> float | None:
        self.asked.append("torch")
        return None if work.int8_attention else 2.0


def test_longspan_and_torch_are_measured_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, repeats = Clock(), []

    def bodies(tier: str, work: Work, count: int) -> Any:
        repeats.append(count)
        return SimpleNamespace(seconds=clock.both)

    monkeypatch.setattr(command, "Bodies", bodies)
    linear, *_, over_bytes = all_work("int8", 4096)
    row = command.measure("generic", linear, clock, rounds=2)  # type: ignore[arg-type]
    assert clock.asked == ["longspan", "torch"] * 2
    total = repeats[0] * linear.operations
    assert (row.rate, row.torch) == (total / 0.5, total / 2.0)
    assert command.line(row).split()[-2:] == [f"{total / seconds / row.ceiling:.0%}" for seconds in (0.5, 2.0)]
    assert command.line(command.measure("generic", over_bytes, clock, rounds=1)).endswith(" -")  # type: ignore[arg-type]
    assert all(command.REPEATS[0] <= count <= command.REPEATS[1] for count in repeats)


def test_torch_answers_from_a_process_that_is_held() -> None:
    before = dict(os.environ)
    held = TorchKernels("v3")
    try:
        seconds = held.seconds(Work("linear", "float32", 8, 64, 32), 3)
        assert held.why == ""
        assert seconds is not None
        assert seconds > 0
        assert held.seconds(Work("attention", "int8", 8, 768, 768, int8_attention=True), 3) is None
        held.seconds(Work("linear", "float8", 8, 64, 32), 3)  # torch raises
        assert "float8" in held.why
        assert held.seconds(Work("linear", "float32", 8, 64, 32), 3) is None
    finally:
        held.close()
    assert dict(os.environ) == before


def test_operations_are_those_of_one_instruction() -> None:
    works = {work.name: work for work in all_work("int8", 8)}
    assert works["linear 3072 -> 768"].operations == 2 * 8 * 3072 * 768
    assert works["attention over int8, head size 64"].operations == 4 * 8 * 8 * 768
    for work in works.values():
        bodies = Bodies("generic", work, repeats=5)
        entries = [len(bound[0].watched()) for bound in (bodies.once, bodies.more)]  # one for each instruction
        assert entries[1] - entries[0] == 5


@pytest.mark.parametrize(("weights", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_torch_multiplies_in_the_dtype_of_the_weights(weights: str, dtype: torch.dtype) -> None:
    out = _linear(Work("linear", weights, 3, 64, 32))()
    assert tuple(out.shape) == (3, 32)
    assert out.dtype == dtype


def test_torch_multiplies_bytes_with_rows_of_float32() -> None:
    run: Any = _linear(Work("linear", "int8", 3, 64, 32))
    assert run.func[0].weight().dtype == torch.qint8
    assert run().dtype == torch.float32


@pytest.mark.parametrize(("weights", "dtype"), [("float32", torch.float32), ("int8", torch.bfloat16)])
def test_torch_attends_in_the_same_shape_but_not_over_bytes(weights: str, dtype: torch.dtype) -> None:
    run = _attention(Work("attention", weights, 5, 768, 768))
    assert run is not None
    assert tuple(run().shape) == (1, 12, 5, 64)
    assert run().dtype == dtype
    assert _attention(Work("attention", "int8", 5, 768, 768, int8_attention=True)) is None
