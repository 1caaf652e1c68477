"""`python -m benchmarks memory` with Longspan alone, and the shapes that it writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks.__main__ import main
from benchmarks.memory import ceilings
from benchmarks.memory.shapes import bert_base, write

from longspan import Encoder
from longspan.checkpoint.panels import PACKED_TYPES
from longspan.weights import Format


@pytest.mark.slow
def test_command(minilm: Path, tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    command = ["memory", "--peers", "longspan-int8", "--tokens", "32,64", "--model", str(minilm)]
    assert main([*command, "--output", str(path)]) == 0
    found = json.loads(path.read_text())["tokens"]
    assert list(found) == ["32", "64"]
    for (result,) in found.values():
        assert result["name"] == "longspan-int8"
        assert result["peak_memory_bytes"] > 1 << 20
        assert result["seconds"][0] > 0


def test_a_peer_that_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["memory", "--peers", "longspan,nobody"])
    assert "unknown peer 'nobody'; known are longspan" in capsys.readouterr().err


@pytest.mark.slow
def test_ceilings(minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ceilings.SHAPES, "small", lambda positions: bert_base(2, positions))
    path = tmp_path / "figures.json"
    command = [
        "memory",
        "--shape",
        "small",
        "--ceilings",
        "none,400MiB",
        "--tokens",
        "64",
        "--texts",
        "3",
        "--rounds",
        "2",
    ]
    assert main([*command, "--model", str(minilm), "--output", str(path)]) == 0
    free, below, *again = json.loads(path.read_text())["tokens"]["64"]
    assert [round["memory"] for round in again] == ["none", "400MiB"]
    assert (free["memory"], below["memory"]) == ("none", "400MiB")
    assert 1 << 20 < below["peak"] <= 400 << 20
    assert below["predicted"] <= 400 << 20


@pytest.mark.parametrize("weights", PACKED_TYPES)
def test_a_shape_runs_as_a_saved_model_does(minilm: Path, tmp_path: Path, weights: Format) -> None:
    folder = write(bert_base(layers=2, positions=64), weights, minilm, tmp_path / "shape")
    vector = Encoder(folder, device="cpu", pooling="mean").encode("a text")
    assert vector.shape == (768,)
    assert np.isfinite(vector).all()
