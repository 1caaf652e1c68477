"""Every workload of `python -m benchmarks cpu` with Longspan alone, on small models."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import exports, peers, runner
from benchmarks.__main__ import main
from benchmarks.worker import Worker

from longspan import Encoder


def figures(tmp_path: Path, *arguments: str) -> Any:
    """Runs the command and reads what it wrote."""
    path = tmp_path / "figures.json"
    assert main(["cpu", "--peers", "longspan", "--rounds", "1", "--output", str(path), *arguments]) == 0
    return json.loads(path.read_text())


def test_texts(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (task,) = figures(tmp_path, "--model", str(small), "--texts", "20")["tasks"]
    assert task["results"][0]["tokens_per_second"] > 0
    assert task["results"][0]["latency_p50_ms"] > 0
    printed = capsys.readouterr().out
    assert "ceilings, register-only loops" in printed
    assert printed.count("vectors are unchecked: sentence-transformers does not take part") == 1


def test_startup(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (task,) = figures(tmp_path, "--model", str(small), "--workload", "startup")["tasks"]
    (result,) = task["results"]
    assert 0 < result["seconds"][0] < 30
    assert result["peak_memory_bytes"] > 1 << 20
    assert capsys.readouterr().out.count("vectors are unchecked") == 1


@pytest.mark.slow
def test_long(minilm: Path, tmp_path: Path) -> None:
    record = figures(tmp_path, "--workload", "long", "--tokens", "64", "--model", str(minilm))
    (task,) = record["tasks"]
    assert "one text of 64 tokens" in task["title"]
    assert task["results"][0]["cosine_min"] > 0.9999
    assert task["results"][0]["peak_memory_bytes"] > 1 << 20


def test_nothing_to_measure(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(*_: object) -> peers.Implementation:
        raise ModuleNotFoundError("No module named 'absent'")

    monkeypatch.setitem(peers.PEERS, "longspan", (absent, "float32"))
    assert main(["cpu", "--peers", "longspan", "--model", str(small), "--output", str(tmp_path / "none.json")]) == 1
    assert "skipped longspan: No module named 'absent'" in capsys.readouterr().out


@pytest.mark.slow
def test_a_tier_is_asked_for_before_anything_is_loaded(small: Path, tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks", "cpu", "--isa", "v3", "--peers", "longspan", "--rounds", "1"]
    command += ["--model", str(small), "--texts", "5", "--no-latency", "--output", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3], check=False)
    assert done.returncode == 0, done.stderr
    assert "held to v3: longspan" in done.stdout
    assert json.loads(path.read_text())["options"]["isa"] == "v3"


def test_a_worker_does_what_the_peer_does(small: Path, tmp_path: Path) -> None:
    worker = Worker("longspan", peers.Source(small, 16, tmp_path))
    texts = ["One text.", "And another one."]
    assert np.array_equal(worker.encode(texts), Encoder(small).encode(texts))
    assert worker.peak_memory_bytes() > 1 << 20
    worker.close()


def test_a_worker_whose_process_ends_is_left_out(small: Path, tmp_path: Path) -> None:
    worker = Worker("longspan", peers.Source(small, 16, tmp_path))
    (child,) = multiprocessing.active_children()
    child.kill()
    lines: list[str] = []
    assert runner.measure([worker], ["A text."], 4, rounds=1, report=lines.append) == []
    assert lines == ["left out longspan: its process ended with code -9"]


def test_a_worker_that_cannot_be_made_says_why(small: Path, tmp_path: Path) -> None:
    with pytest.raises(peers.UnavailableError, match="llama"):
        Worker("llama.cpp", peers.Source(small, 16, tmp_path))


def test_exports_are_made_once(small: Path, tmp_path: Path) -> None:
    for _ in range(2):
        path = exports.once(tmp_path / "deeper" / "copy.txt", _note, small)
    assert path.read_text() == f"{small.name}\n"


def _note(model: Path, path: Path) -> None:
    with path.open("a") as file:
        file.write(f"{model.name}\n")
