"""Folders with weights in panels: what they hold, who can read them, and every kind of damage named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

from longspan import CheckpointError, Encoder, InputError, _csrc
from longspan.checkpoint.extras import read_extras
from longspan.checkpoint.panels import FILE, PackedView
from longspan.checkpoint.tensors import Tensors
from longspan.checkpoint.writing import NewTensor, write_tensors
from longspan.weights import Format

TEXTS = ["The weather is lovely today.", "", "So sunny outside! " * 30]
NARROW: tuple[Format, ...] = ("bfloat16", "int8")
UP = "encoder.layer.0.intermediate.dense.weight"
QKV = "+".join(f"encoder.layer.0.attention.self.{name}.weight" for name in ("query", "key", "value"))

Read = tuple[dict[str, Any], dict[str, str]]
Change = Callable[[dict[str, Any], dict[str, str]], Any]
"""Changes arrays and metadata in place."""


@pytest.fixture(scope="module")
def folders(small: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Format, Path]:
    """A tiny BERT, saved in each format."""
    place = tmp_path_factory.mktemp("panels")
    for weights in NARROW:
        Encoder(small, device="cpu", weights=weights).save(place / weights)
    return {weights: place / weights for weights in NARROW}


def read(path: Path) -> Read:
    """The arrays and the metadata of a file, by safetensors itself; bfloat16 as uint16."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        bits = {name: it.view(torch.uint16) if it.dtype == torch.bfloat16 else it for name, it in tensors.items()}
        return {name: it.numpy() for name, it in bits.items()}, file.metadata()


def changed(source: Path, target: Path, change: Change) -> Path:
    """The folder with what its weights' file holds, or says, changed."""
    target.mkdir()
    for path in source.iterdir():
        if path.name != FILE:
            (target / path.name).symlink_to(path)
    arrays, metadata = read(source / FILE)
    change(arrays, metadata)
    types = {"int8": "I8", "uint16": "BF16", "float32": "F32"}
    tensors = [NewTensor(n, types[str(a.dtype)], a.shape, (np.ascontiguousarray(a),)) for n, a in arrays.items()]
    with (target / FILE).open("wb") as file:
        write_tensors(file, tensors, metadata)
    return target


# --- what a folder holds ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", NARROW)
def test_what_is_in_the_file(folders: dict[Format, Path], small: Path, weights: Format) -> None:
    arrays, metadata = read(folders[weights] / FILE)
    original = Tensors.open(small)
    packed = json.loads(metadata.pop("packed"))
    attention = {"attention": "int8"} if weights == "int8" else {}
    assert metadata == {"format": "longspan", "layout": "1", "weights": weights, **attention}
    assert packed[UP] == ["F32", list(original[UP].shape)]
    columns, k = original[UP].shape
    terms = {"bfloat16": 2, "int8": 4}[weights]
    lines = -(-k // (terms * 16)) * 16
    panels = arrays[f"{UP}.panels"]
    assert panels.shape == (-(-columns // 16), lines, 16, terms)
    assert f"{QKV}.panels" in arrays
    assert (f"{UP}.scales" in arrays) == (f"{UP}.totals" in arrays) == (weights == "int8")
    unpacked = panels.transpose(0, 2, 1, 3).reshape(-1, lines * terms)[:columns, :k]
    if weights == "int8":
        values = unpacked * arrays[f"{UP}.scales"][:columns, None] * arrays[f"{UP}.smooth"][:k]
        np.testing.assert_array_equal(arrays[f"{UP}.totals"][:columns], unpacked.sum(1, dtype=np.int64))
    else:
        values = (unpacked.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_allclose(values, original[UP].data, atol=np.abs(original[UP].data).max() / 50)
    bias = UP.replace("weight", "bias")
    assert arrays[bias].tobytes() == original[bias].data.tobytes()
    assert not set(packed) & set(arrays)


@pytest.mark.parametrize("isa", _csrc.tiers())
@pytest.mark.parametrize("weights", NARROW)
def test_every_tier(
    folders: dict[Format, Path], small: Path, tmp_path: Path, weights: Any, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bits are those of the encoder that saved; what another tier saved differs by the rounding of its samples."""
    monkeypatch.setenv("LONGSPAN_ISA", isa)
    packed = Encoder(small, device="cpu", weights=weights)
    packed.save(tmp_path / "own")
    own, other = (Encoder(folder, device="cpu").encode(TEXTS) for folder in (tmp_path / "own", folders[weights]))
    assert own.tobytes() == packed.encode(TEXTS).tobytes()
    assert (own * other).sum(1) == pytest.approx(np.linalg.norm(own, axis=1) * np.linalg.norm(other, axis=1), rel=1e-3)
    if weights == "bfloat16":
        assert own.tobytes() == other.tobytes()


def test_a_transformer_in_a_folder_of_its_own(small: Path, tmp_path: Path) -> None:
    source, inner = tmp_path / "source", tmp_path / "source" / "0_Transformer"
    Encoder(small, device="cpu").save(source)  # with a modules.json
    inner.mkdir()
    for path in source.iterdir():
        if path.is_file() and path.name != "modules.json":
            path.rename(inner / path.name)
    modules = json.loads((source / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (source / "modules.json").write_text(json.dumps(modules))
    encoder = Encoder(source, device="cpu", weights="int8")
    encoder.save(tmp_path / "saved")
    weights = {str(path.relative_to(tmp_path / "saved")) for path in (tmp_path / "saved").rglob("*.safetensors")}
    assert weights == {f"0_Transformer/{FILE}"}
    assert (tmp_path / "saved" / "README.md").exists()
    assert Encoder(tmp_path / "saved", device="cpu").encode(TEXTS).tobytes() == encoder.encode(TEXTS).tobytes()


def test_names_are_the_checkpoints(folders: dict[Format, Path], small: Path) -> None:
    tensors, original = Tensors.open(folders["int8"]), Tensors.open(small)
    assert set(tensors) <= set(original)
    assert all(
        tensors[name].shape == original[name].shape and tensors[name].dtype == original[name].dtype for name in tensors
    )
    view = tensors[UP]
    assert isinstance(view, PackedView)
    view.release()
    with pytest.raises(CheckpointError, match=rf"{FILE} holds '{UP}' in panels of int8, .* load the checkpoint"):
        view.data  # noqa: B018


@pytest.mark.parametrize("weights", NARROW)
def test_saved_again(folders: dict[Format, Path], tmp_path: Path, weights: Format) -> None:
    encoder = Encoder(folders[weights], device="cpu", long_text="truncate")
    encoder.save(tmp_path / "again")
    files = {path.name for path in folders[weights].iterdir()}
    assert {path.name for path in (tmp_path / "again").iterdir()} == files
    for name in {FILE, "README.md"}:
        assert (tmp_path / "again" / name).read_bytes() == (folders[weights] / name).read_bytes()
    again = Encoder(tmp_path / "again", device="cpu")
    assert again.encode(TEXTS).tobytes() == encoder.encode(TEXTS).tobytes()
    assert again.long_text == "truncate"


def test_longspan_json(folders: dict[Format, Path], small: Path, tmp_path: Path) -> None:
    for weights, folder in folders.items():
        said = json.loads((folder / "longspan.json").read_text())
        assert (said["format"], said["weights"]) == (2, {"format": weights, "layout": 1})
        assert read_extras(folder).weights == weights
    Encoder(small, device="cpu").save(tmp_path / "plain")
    assert json.loads((tmp_path / "plain" / "longspan.json").read_text())["format"] == 1
    assert not (tmp_path / "plain" / FILE).exists()


@pytest.mark.parametrize(
    ("before", "start", "end"),
    [
        (None, "> **Only", "made of.\n"),
        ("# A model\n", "> **Only", "\n# A model\n"),
        ("---\nlicense: mit\n---\n# A model\n", "---\nlicense: mit\n---\n> **Only", "\n# A model\n"),
        ("---\nno end\n", "> **Only", "\n---\nno end\n"),
    ],
)
def test_readme(small: Path, tmp_path: Path, before: str | None, start: str, end: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for path in small.iterdir():
        if path.name != "README.md":
            (source / path.name).symlink_to(path)
    if before is not None:
        (source / "README.md").write_text(before)
    Encoder(source, device="cpu", weights="int8").save(tmp_path / "saved")
    text = (tmp_path / "saved" / "README.md").read_text()
    assert text.startswith(start)
    assert text.endswith(end)
    assert "`longspan.safetensors`, in int8" in text


# --- who can read it -------------------------------------------------------------------------------------------------


def test_others_find_no_weights(folders: dict[Format, Path]) -> None:
    for load in (AutoModel.from_pretrained, SentenceTransformer):
        with pytest.raises(OSError, match="no file named model"):
            load(str(folders["int8"]))


@pytest.mark.parametrize("other", ["float32", "bfloat16"])
def test_another_format(folders: dict[Format, Path], other: Any) -> None:
    with pytest.raises(InputError, match=rf"weights is '{other}', but .*{FILE} holds panels of int8: load them as"):
        Encoder(folders["int8"], device="cpu", weights=other)
    assert Encoder(folders["int8"], device="cpu", weights="int8").encode(TEXTS).shape == (3, 32)


def test_another_executor(folders: dict[Format, Path]) -> None:
    with pytest.raises(CheckpointError, match="in panels of int8, which the CPU's kernels alone read"):
        Encoder(folders["int8"], device="cpu", backend="reference")


def test_an_adapter(folders: dict[Format, Path], tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 1}))
    module = f"base_model.model.{QKV.partition('+')[0].removesuffix('.weight')}"
    factors = {"lora_A": (1, 32), "lora_B": (32, 1)}
    with (tmp_path / "adapter_model.safetensors").open("wb") as file:
        tensors = [NewTensor(f"{module}.{n}.weight", "F32", s, (np.ones(s, np.float32),)) for n, s in factors.items()]
        write_tensors(file, tensors, {})
    with pytest.raises(
        CheckpointError, match=r"query\.weight' in panels of int8, .* or an adapter, load the checkpoint"
    ):
        Encoder(folders["int8"], device="cpu", adapter=tmp_path)


# --- damage ----------------------------------------------------------------------------------------------------------


def without(name: str) -> Change:
    return lambda arrays, metadata: arrays.pop(name)


def instead(name: str, make: Callable[[Any], Any]) -> Change:
    return lambda arrays, metadata: arrays.update({name: make(arrays[name])})


def said(**words: str) -> Change:
    return lambda arrays, metadata: metadata.update(words)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without(f"{UP}.panels"), f"has no tensor '{UP}.panels'"),
        (without(f"{UP}.scales"), f"mlp: there is no {UP}.scales, an aligned array"),
        (without(UP.replace("weight", "bias")), "has no tensor"),
        (
            instead(f"{UP}.panels", lambda a: a[:, :-1]),
            f"mlp: {UP}.panels is not an aligned array [4, 16, 16, 4] of int8",
        ),
        (instead(f"{UP}.panels", lambda a: a[:-1]), f"mlp: {UP}.panels is not an aligned array"),
        (instead(f"{UP}.panels", lambda a: a.view(np.uint16)), f"mlp: {UP}.panels is not an aligned array"),
        (instead(f"{UP}.totals", lambda a: a[:-1]), f"mlp: {UP}.totals is not an aligned array [64] of float32"),
        (instead(f"{UP}.smooth", lambda a: a[:-1]), f"mlp: {UP}.smooth is not an aligned array [32] of float32"),
        (instead(f"{QKV}.scales", lambda a: a.view(np.int8)), "qkv: encoder.layer.0.attention.self.query.weight+"),
        (instead(f"{UP}.scales", lambda a: -a), f"is damaged: '{UP}.scales' holds numbers that no packed matrix has"),
        (instead(f"{UP}.scales", lambda a: a + np.float32(np.inf)), f"is damaged: '{UP}.scales'"),
        (instead(f"{UP}.totals", lambda a: a * np.float32(np.nan)), f"is damaged: '{UP}.totals'"),
        (instead(f"{UP}.totals", lambda a: a + np.float32(0.25)), f"is damaged: '{UP}.totals'"),
        (instead(f"{UP}.smooth", lambda a: a * np.float32(np.nan)), f"is damaged: '{UP}.smooth'"),
        (said(format="pt"), "its metadata lacks 'format': 'longspan'"),
        (said(layout="2"), "is of layout '2', and this version of Longspan reads 1 only; upgrade it"),
        (said(weights="int4"), "'weights' is 'int4'; known are bfloat16, int8"),
        (said(weights="bfloat16"), "is not an aligned array"),
        (said(attention="int4"), "'attention' is 'int4', expected 'int8' or nothing"),
        (said(packed="{"), "'packed' in its metadata is damaged"),
        (said(packed="[]"), "'packed' in its metadata is damaged"),
        (said(packed='{"a": ["F32"]}'), "'packed' in its metadata is damaged"),
        (said(packed='{"a": ["F3", [2]]}'), "'packed' in its metadata names an unknown type"),
        (said(packed="{}"), "has no tensor"),
    ],
)
def test_damage_is_named(folders: dict[Format, Path], tmp_path: Path, change: Change, message: str) -> None:
    folder = changed(folders["int8"], tmp_path / "changed", change)
    with pytest.raises(CheckpointError) as caught:
        Encoder(folder, device="cpu")
    assert str(caught.value).startswith(str(folder / FILE))
    assert message in str(caught.value)


def test_nothing_changed_is_whole(folders: dict[Format, Path], tmp_path: Path) -> None:
    folder = changed(folders["int8"], tmp_path / "same", lambda arrays, metadata: None)
    mine, theirs = (Encoder(place, device="cpu").encode(TEXTS) for place in (folder, folders["int8"]))
    assert mine.tobytes() == theirs.tobytes()


def test_a_weight_that_is_no_number_is_no_damage(small: Path, tmp_path: Path) -> None:
    """Its column is NaN, after loading as before."""
    source = tmp_path / "source"
    shutil.copytree(small, source)
    tensors = {name: tensor.copy() for name, tensor in load_file(source / "model.safetensors").items()}
    tensors[UP][5, 3] = np.nan
    save_file(tensors, source / "model.safetensors")
    encoder = Encoder(source, device="cpu", weights="int8")
    encoder.save(tmp_path / "saved")
    assert np.isnan(encoder.encode(TEXTS)).all()
    assert np.isnan(Encoder(tmp_path / "saved", device="cpu").encode(TEXTS)).all()


@pytest.mark.parametrize("cut", [1, 1000, 100_000])
def test_truncated(folders: dict[Format, Path], tmp_path: Path, cut: int) -> None:
    folder = changed(folders["int8"], tmp_path / "cut", lambda arrays, metadata: None)
    raw = (folder / FILE).read_bytes()
    (folder / FILE).unlink()
    (folder / FILE).write_bytes(raw[:-cut])
    with pytest.raises(CheckpointError, match=rf"{FILE} is truncated: header promises"):
        Encoder(folder, device="cpu")


def test_out_of_line(folders: dict[Format, Path], tmp_path: Path) -> None:
    """Another writer may put panels anywhere."""
    folder = changed(folders["int8"], tmp_path / "moved", lambda arrays, metadata: None)
    raw = (folder / FILE).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    (folder / FILE).unlink()
    (folder / FILE).write_bytes((length + 4).to_bytes(8, "little") + raw[8 : 8 + length] + b"    " + raw[8 + length :])
    with pytest.raises(CheckpointError, match=rf"{FILE}: .*\.panels is not an aligned array"):
        Encoder(folder, device="cpu")
