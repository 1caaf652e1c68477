"""safetensors through a map: every tensor as written, every kind of damage named."""

from __future__ import annotations

import json
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from longspan.checkpoint.tensors import Tensors
from longspan.errors import CheckpointError, CheckpointNotFoundError

Arrays = dict[str, npt.NDArray[Any]]
NUMPY_TO_NAME = {"f2": "F16", "f4": "F32", "f8": "F64", "i1": "I8", "i4": "I32", "i8": "I64", "u1": "U8", "b1": "BOOL"}
# One folder serves all examples of a property: each writes the file anew.
shared_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@st.composite
def arrays(draw: st.DrawFn) -> Arrays:
    names = draw(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=4, unique=True))
    found: Arrays = {}
    for name in names:
        if name == "__metadata__":
            continue
        dtype = np.dtype(draw(st.sampled_from(sorted(NUMPY_TO_NAME))))
        shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
        raw = draw(
            st.binary(min_size=int(np.prod(shape)) * dtype.itemsize, max_size=int(np.prod(shape)) * dtype.itemsize)
        )
        bits = np.frombuffer(raw, np.uint8) % 2 if dtype == np.bool_ else np.frombuffer(raw, np.uint8)
        found[name] = bits.view(dtype).reshape(shape).copy()
    return found


def write_raw(path: Path, header: object, payload: bytes = b"") -> Path:
    """A safetensors file from a header, given as text or as what it should say, and bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + payload)
    return path


def entry(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@shared_folder
@given(arrays())
def test_round_trip(tmp_path: Path, written: Arrays) -> None:
    save_file(written, tmp_path / "model.safetensors", metadata={"format": "pt"})
    tensors = Tensors.open(tmp_path)
    assert set(tensors) == set(written)
    for name, array in written.items():
        view = tensors.require(name, array.shape)
        assert view.dtype == NUMPY_TO_NAME[array.dtype.str[1:]]
        assert view.shape == view.data.shape == array.shape
        assert view.data.dtype == array.dtype
        assert view.data.tobytes() == array.tobytes()
        assert view.data.flags.aligned
        assert not view.data.flags.writeable
        assert view.file == tmp_path / "model.safetensors"


@shared_folder
@given(written=arrays(), data=st.data())
def test_damage_never_crashes(tmp_path: Path, written: Arrays, data: st.DataObject) -> None:
    path = tmp_path / "model.safetensors"
    save_file(written, path)
    raw = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=3)):
        raw[place] = data.draw(st.integers(0, 255))
    path.unlink()  # a map of an earlier example must keep its own file
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))] + data.draw(st.binary(max_size=3)))
    try:
        tensors = Tensors.open_file(path)
    except CheckpointError:
        return
    for view in tensors.values():
        assert len(view.data.tobytes()) == view.data.nbytes
        view.release()


@shared_folder
@given(written=arrays(), data=st.data())
def test_truncation_is_an_error(tmp_path: Path, written: Arrays, data: st.DataObject) -> None:
    path = tmp_path / "model.safetensors"
    save_file(written, path)
    raw = path.read_bytes()
    path.unlink()
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw) - 1))])
    with pytest.raises(CheckpointError):
        Tensors.open_file(path)


def test_views_do_not_copy(tmp_path: Path) -> None:
    save_file({"x": np.arange(6, dtype=np.float32)}, tmp_path / "model.safetensors")
    data = Tensors.open(tmp_path)["x"].data
    base: object = data
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(base, memoryview)
    assert isinstance(base.obj, mmap.mmap)


def test_bfloat16_comes_as_bits(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "x.safetensors", {"x": entry("BF16", [2], [0, 4])}, b"\x80\x3f\x00\xc0")
    view = Tensors.open_file(path)["x"]
    assert view.dtype == "BF16"
    assert view.data.dtype == np.uint16
    assert view.data.tolist() == [0x3F80, 0xC000]


def test_misaligned_tensor_is_copied(tmp_path: Path) -> None:
    values = np.array([1.5, -2.5], np.float32)
    for pad in range(4):
        header = json.dumps({"x": entry()}).encode() + b" " * pad
        view = Tensors.open_file(write_raw(tmp_path / f"{pad}.safetensors", header, values.tobytes()))["x"]
        assert view.data.flags.aligned
        assert not view.data.flags.writeable
        np.testing.assert_array_equal(view.data, values)


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="the system cannot give pages back")
def test_release_gives_pages_back(tmp_path: Path) -> None:
    size = 32 << 20
    values = np.arange(size // 4, dtype=np.int32)
    save_file({"a": values, "b": values[:5]}, tmp_path / "model.safetensors")
    view = Tensors.open(tmp_path)["a"]
    before = resident_bytes()
    total = int(view.data.sum(dtype=np.int64))
    assert resident_bytes() - before > size * 0.9
    view.release()
    assert resident_bytes() - before < size * 0.1
    assert int(view.data.sum(dtype=np.int64)) == total


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def test_release_of_less_than_a_page(tmp_path: Path) -> None:
    save_file({"x": np.ones(3, np.float32), "y": np.ones((0, 2), np.float32)}, tmp_path / "model.safetensors")
    for view in Tensors.open(tmp_path).values():
        view.release()
        assert view.data.sum() == view.data.size


HUGE = 10**30
BAD_HEADERS: dict[str, tuple[object, bytes, str]] = {
    "not UTF-8": (b'{"\xff": 1}', b"", "not JSON"),
    "not JSON": (b"{", b"", "not JSON"),
    "deep": (b"[" * 200_000, b"", "not JSON"),
    "not an object": ([], b"", "not a JSON object"),
    "tensor not an object": ({"x": 3}, b"", "'x' is not described by an object"),
    "dtype unknown": ({"x": entry("F31")}, bytes(8), "'x' has the dtype 'F31'"),
    "dtype not a string": ({"x": entry(["F32"])}, bytes(8), "'x' has the dtype"),
    "dtype missing": ({"x": {"shape": [2], "data_offsets": [0, 8]}}, bytes(8), "'x' has the dtype None"),
    "shape negative": ({"x": entry(shape=[-2])}, bytes(8), "'x' has the shape"),
    "shape float": ({"x": entry(shape=[2.0])}, bytes(8), "'x' has the shape"),
    "shape boolean": ({"x": entry(shape=[True, 2])}, bytes(8), "'x' has the shape"),
    "shape missing": ({"x": entry(shape=None)}, bytes(8), "'x' has the shape None"),
    "shape of too many": ({"x": entry(shape=[1] * 99, offsets=[0, 4])}, bytes(4), "numpy cannot hold"),
    "shape too large": ({"x": entry(shape=[HUGE, 0], offsets=[0, 0])}, b"", "numpy cannot hold"),
    "offsets missing": ({"x": entry(offsets=None)}, bytes(8), "'x' has the data_offsets"),
    "offsets three": ({"x": entry(offsets=[0, 4, 8])}, bytes(8), "'x' has the data_offsets"),
    "offsets negative": ({"x": entry(offsets=[-8, 0])}, bytes(8), "'x' has the data_offsets"),
    "offsets reversed": ({"x": entry(offsets=[8, 0])}, bytes(8), "'x' has data_offsets .* of -8 bytes"),
    "offsets short": ({"x": entry(offsets=[0, 4])}, bytes(4), "'x' has data_offsets .* of 4 bytes, .* takes 8"),
    "offsets outside": ({"x": entry(offsets=[HUGE, HUGE + 8])}, bytes(8), "belong to no tensor"),
    "overlap": ({"x": entry(), "y": entry(offsets=[4, 12])}, bytes(12), "'y' overlaps"),
    "hole": ({"x": entry(), "y": entry(offsets=[9, 17])}, bytes(17), "1 bytes before tensor 'y'"),
    "cut": ({"x": entry()}, bytes(7), "is truncated: header promises"),
    "too long": ({"x": entry()}, bytes(9), "1 bytes after its last tensor"),
    "twice": (b'{"x": {}, "x": {}}', b"", "names 'x' twice"),
}


@pytest.mark.parametrize("case", BAD_HEADERS)
def test_bad_header(tmp_path: Path, case: str) -> None:
    header, payload, message = BAD_HEADERS[case]
    path = write_raw(tmp_path / "model.safetensors", header, payload)
    with pytest.raises(CheckpointError, match=message) as caught:
        Tensors.open(tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "is empty"),
        (b"1234567", "is truncated"),
        ((9).to_bytes(8, "little") + b"{}", "its header takes 17 bytes, the file has 10"),
        ((100_000_001).to_bytes(8, "little"), "declares a header of 100000001 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
    ],
)
def test_bad_start(tmp_path: Path, raw: bytes, message: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match=message):
        Tensors.open_file(path)


def test_folder_where_a_file_should_be(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(CheckpointError, match="cannot be read"):
        Tensors.open(tmp_path)


def write_shards(folder: Path, **weight_map: object) -> None:
    save_file({"a": np.ones(2, np.float32)}, folder / "one.safetensors")
    save_file({"b": np.zeros((1, 3), np.float16)}, folder / "two.safetensors")
    index = {"metadata": {"total_size": 14}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_shards(tmp_path: Path) -> None:
    write_shards(tmp_path, a="one.safetensors", b="two.safetensors")
    tensors = Tensors.open(tmp_path)
    assert list(tensors) == ["a", "b"]
    assert tensors.require("b", [1, 3]).file == tmp_path / "two.safetensors"


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a": "three.safetensors"}, r"three\.safetensors does not exist"),
        ({"b": "one.safetensors"}, r"one\.safetensors has no tensor 'b'"),
        ({"a": 1}, r"index\.json: field 'weight_map\.a' is .*, expected a string"),
        ({"a": None}, "must name a file"),
        ({"a": ""}, "must name a file"),
        ({"a": "../one.safetensors"}, "must name a file"),
        ({"a": "/one.safetensors"}, "must name a file"),
        ({}, r"index\.json: field 'weight_map' is missing or empty"),
    ],
)
def test_bad_index(tmp_path: Path, weight_map: dict[str, object], message: str) -> None:
    write_shards(tmp_path, **weight_map)
    with pytest.raises(CheckpointError, match=message):
        Tensors.open(tmp_path)


def test_no_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match="has no weights"):
        Tensors.open(tmp_path)
    (tmp_path / "model-00001-of-00002.safetensors").touch()
    with pytest.raises(CheckpointNotFoundError, match="shards but no"):
        Tensors.open(tmp_path)


def test_require_explains(tmp_path: Path) -> None:
    names = [f"encoder.layer.{layer}.weight" for layer in range(5)]
    save_file({name: np.ones((2, 3), np.float32) for name in names}, tmp_path / "model.safetensors")
    tensors = Tensors.open(tmp_path)
    with pytest.raises(CheckpointError, match=r"no tensor 'encoder\.layer\.9\.weight'; the closest") as caught:
        tensors.require("encoder.layer.9.weight", (2, 3))
    assert sum(name in str(caught.value) for name in names) == 3
    with pytest.raises(CheckpointError, match=r"no tensor 'zzz'\.$"):
        tensors.require("zzz", (2, 3))
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors: .*0\.weight' .* \[2, 3\], but \[3, 2\] is expected"
    ):
        tensors.require(names[0], (3, 2))
    with pytest.raises(KeyError):
        tensors["zzz"]
