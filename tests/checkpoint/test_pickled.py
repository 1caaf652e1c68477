"""Weights in pytorch_model.bin: the same vectors, and no code from a file."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense, Pooling, Transformer

from longspan import CheckpointError, CheckpointNotFoundError, Encoder
from longspan.checkpoint.tensor_view import as_float32
from longspan.checkpoint.tensors import Tensors

from .folders import WIDTH

TEXTS = ["The weather is lovely today.", "", "It's so sunny outside!"]


def pickled(source: Path, folder: Path, **saving: Any) -> Path:
    """The same model without safetensors."""
    shutil.copytree(source, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin", **saving)
    (folder / "model.safetensors").unlink()
    return folder


@pytest.mark.parametrize("zipped", [True, False])
def test_the_same_bits(small: Path, tmp_path: Path, zipped: bool) -> None:
    folder = pickled(small, tmp_path / "model", _use_new_zipfile_serialization=zipped)
    encoder = Encoder(folder)
    expected = Encoder(small).encode(TEXTS).tobytes()
    assert encoder.encode(TEXTS).tobytes() == expected
    encoder.save(tmp_path / "saved")
    assert Encoder(tmp_path / "saved").encode(TEXTS).tobytes() == expected


def test_shards(small: Path, tmp_path: Path) -> None:
    folder = pickled(small, tmp_path / "model")
    tensors = torch.load(folder / "pytorch_model.bin")
    (folder / "pytorch_model.bin").unlink()
    names = sorted(tensors)
    parts = {"pytorch_model-1.bin": names[::2], "pytorch_model-2.bin": names[1::2]}
    for file, mine in parts.items():
        torch.save({name: tensors[name] for name in mine}, folder / file)
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {name: file for file, mine in parts.items() for name in mine}}))
    assert Encoder(folder).encode(TEXTS).tobytes() == Encoder(small).encode(TEXTS).tobytes()
    (folder / "pytorch_model-2.bin").unlink()
    with pytest.raises(CheckpointNotFoundError, match=r"pytorch_model-2\.bin does not exist, but .* names it"):
        Encoder(folder)


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({}, "'weight_map' is missing or empty"),
        ({"a": "../other.bin"}, "must name a file inside the folder"),
        ({"b": "part.bin"}, r"part\.bin has no tensor 'b'"),
    ],
)
def test_bad_index(tmp_path: Path, weight_map: dict[str, str], message: str) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "part.bin")
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match=message):
        Tensors.open(tmp_path)


def test_dense_modules(plain: Path, tmp_path: Path) -> None:
    """Old checkpoints of sentence-transformers have them in every module's folder."""
    model = SentenceTransformer(
        modules=[Transformer(str(plain)), Pooling(WIDTH, "mean"), Dense(WIDTH, 8, activation_function=torch.nn.Tanh())],
        device="cpu",
    )
    expected = model.encode(TEXTS)
    folder = tmp_path / "model"
    model.save(str(folder))
    for weights in list(folder.rglob("model.safetensors")):
        torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
        weights.unlink()
    np.testing.assert_allclose(Encoder(folder).encode(TEXTS), expected, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.bool])
def test_types(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = (torch.arange(12).reshape(3, 4) % 2).to(dtype).T  # not contiguous
    torch.save({"a": tensor, "b": tensor[:0]}, tmp_path / "pytorch_model.bin")
    view = Tensors.open(tmp_path)["a"]
    assert view.shape == (4, 3)
    np.testing.assert_array_equal(as_float32(view.data, view.dtype), tensor.float())
    view.release()
    assert Tensors.open(tmp_path)["b"].shape == (0, 3)


class Evil:
    """Runs code when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


def test_no_code_is_run(tmp_path: Path) -> None:
    torch.save({"a": Evil(tmp_path / "trace")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: torch does not load it with weights_only"):
        Tensors.open(tmp_path)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([torch.zeros(2)], "holds list where a table of tensors is expected"),
        ({"a": 7}, "'a' is no tensor of a type that can be read"),
        ({"a": torch.zeros(2, dtype=torch.complex64)}, "'a' is no tensor of a type"),
        ({"a": torch.zeros(2, 2).to_sparse()}, "'a' is no tensor of a type"),
    ],
)
def test_what_is_no_table_of_tensors(tmp_path: Path, value: Any, message: str) -> None:
    torch.save(value, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=message):
        Tensors.open(tmp_path)


def test_damaged(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK\3\4 and no more")
    with pytest.raises(CheckpointError, match="torch does not load it"):
        Tensors.open(tmp_path)


def test_without_torch(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pickled(small, tmp_path / "model")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match="install torch, or convert them to safetensors"):
        Tensors.open(folder)
