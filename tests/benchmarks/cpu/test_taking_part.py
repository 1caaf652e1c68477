"""Who takes part in a workload of `python -m benchmarks cpu`, with processes that only pretend to work."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import peers
from benchmarks.__main__ import main
from benchmarks.cpu import checkpoints, long, report, short, startup
from benchmarks.cpu.setup import Setup
from benchmarks.peers import Source
from benchmarks.runner import Measurement
from numpy.typing import NDArray

VECTORS = {"sentence-transformers": (1.0, 0.0), "longspan": (1.0, 0.0), "openvino": (1.0, 0.1)}


@pytest.fixture
def setup(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    """Two rounds, without ceilings."""
    monkeypatch.setattr(Setup, "look_up", lambda self: None)
    return Setup(small, 2, tmp_path, "")


@dataclass(frozen=True)
class Pretended(startup.Start):
    """A vector without a process."""

    def run(self) -> tuple[float, NDArray[np.float32], int]:
        return 1.0, np.array([VECTORS[self.name]], dtype=np.float32), 1


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody starts at once."""
    for name in VECTORS:
        monkeypatch.setitem(
            startup.STARTS, name, lambda name, precision, source: Pretended(name, precision, "", source.model)
        )


def names_of(task: report.Task) -> list[str]:
    return [result.name for result in task.results]


@pytest.mark.usefixtures("starts")
def test_startup_leaves_out_wrong_vectors(setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
    task = startup.run(setup, ["longspan", "openvino", "sentence-transformers"], 16)
    assert names_of(task) == ["sentence-transformers", "longspan"]
    printed = capsys.readouterr().out
    assert "left out openvino: its smallest cosine to the reference is 0.99504" in printed
    assert "unchecked" not in printed


@pytest.mark.usefixtures("starts")
def test_startup_says_that_vectors_are_unchecked(setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
    assert names_of(startup.run(setup, ["longspan", "openvino"], 16)) == ["longspan", "openvino"]
    assert capsys.readouterr().out.count("unchecked") == 1


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Who was called by the workload `long`, in this order; nobody works."""
    called: list[str] = []

    class Pretender:
        settings: Sequence[peers.Setting] = ({},)
        obeys_tier = True

        def __init__(self, name: str, source: Source) -> None:
            self.name, self.precision = name, peers.PEERS[name][1]
            if name == "openvino-int8":
                raise peers.UnavailableError("no nncf")

        def use(self, setting: peers.Setting) -> None:
            """Nothing to choose."""

        def encode(self, texts: list[str]) -> NDArray[np.float32]:
            called.append(self.name)
            return np.ones((1, 2), dtype=np.float32)

        def peak_memory_bytes(self) -> int:
            return 1

        def close(self) -> None:
            """Nothing to end."""

    monkeypatch.setattr(long, "Worker", Pretender)
    monkeypatch.setattr(long, "_document", lambda source: ["A text."])
    return called


def test_long_texts_in_int8_run_beside_another_precision_too(setup: Setup, calls: list[str]) -> None:
    names = ["longspan-int8", "openvino-int8", "openvino-bf16"]
    (task,) = long.run(setup, setup.model, "a shape", [8], names, {"int8": "openvino-bf16"})
    assert names_of(task) == ["openvino-bf16", "longspan-int8"]
    own, other = "longspan-int8", "openvino-bf16"
    # The reference; bfloat16's check and rounds; int8's checks and rounds.
    assert calls == ["sentence-transformers", *[other] * 3, own, other, own, other, other, own]
    assert task.beside["int8"].seconds != task.results[0].seconds


@pytest.mark.parametrize("names", [["longspan-int8"], ["longspan-bf16", "openvino-bf16"]])
@pytest.mark.usefixtures("calls")
def test_nobody_is_beside_who_does_not_take_part(setup: Setup, names: list[str]) -> None:
    (task,) = long.run(setup, setup.model, "a shape", [8], names, {"int8": "openvino-bf16"})
    assert names_of(task) == names
    assert not task.beside


@pytest.mark.usefixtures("calls")
def test_long_texts_without_a_reference_are_said_to_be_unchecked(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["longspan", "longspan-int8"]
    long.run(setup, setup.model, "a shape", [2 * long.REFERENCE_TOKENS], names)
    assert capsys.readouterr().out.count("vectors are unchecked: 65,536 tokens would take") == 1
    setup.skipped[long.REFERENCE] = "not installed"
    long.run(setup, setup.model, "a shape", [8], names)
    assert capsys.readouterr().out.count("vectors are unchecked: sentence-transformers cannot run") == 1


@pytest.mark.usefixtures("setup")
def test_all_workloads_write_a_file_each(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    took_part: dict[str, list[str]] = {}

    def task(title: str, names: list[str]) -> report.Task:
        took_part[title] = names
        return report.Task(title, [Measurement(name, peers.PEERS[name][1], seconds=[1.0]) for name in names])

    def measured_long(setup: Setup, model: Path, shape: str, lengths: Any, names: list[str], beside: Any) -> Any:
        assert beside == {"int8": "openvino-bf16"}
        return [task(shape, names)]

    monkeypatch.setattr(short, "run", lambda setup, names, *rest: task("texts", names))
    monkeypatch.setattr(startup, "run", lambda setup, names, *rest: task("startup", names))
    monkeypatch.setattr(long, "run", measured_long)
    monkeypatch.setattr(checkpoints, "once", lambda *rest: small)
    arguments = ["--model", str(small), "--peers", "onnxruntime,longspan-int8", "--output", str(tmp_path / "all.json")]
    assert main(["cpu", "--workload", "all", *arguments]) == 0
    assert took_part == {
        "texts": ["onnxruntime", "longspan-int8"],
        "4 layers of BERT-base's shape": ["longspan-int8"],
        "startup": ["onnxruntime", "longspan-int8"],
    }  # nobody of these is in the workload modernbert
    written = {path.name: json.loads(path.read_text())["options"] for path in tmp_path.glob("*.json")}
    assert {name: (options["workload"], options["rounds"]) for name, options in written.items()} == {
        "all-texts.json": ("texts", 5),
        "all-long.json": ("long", 2),
        "all-startup.json": ("startup", 5),
    }
