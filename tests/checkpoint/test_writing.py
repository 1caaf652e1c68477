"""What is written is what safetensors itself reads, and can be used where it lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from longspan.checkpoint.header import read_header
from longspan.checkpoint.writing import ALIGNMENT, NewTensor, write_tensors

NAMES = {"|i1": "I8", "<f2": "F16", "<f4": "F32", "<f8": "F64"}


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, list[npt.NDArray[Any]]]:
    """Parts of tensors by name; the parts of one differ in their first dimension only."""
    names = draw(st.lists(st.text("ab.é", min_size=1, max_size=4), max_size=6, unique=True))
    found = {}
    for name in names:
        dtype, columns = draw(st.sampled_from(sorted(NAMES))), draw(st.sampled_from((1, 3, 16)))
        rows = draw(st.lists(st.integers(0, 5), min_size=1, max_size=3))
        found[name] = [np.arange(count * columns).reshape(count, columns).astype(dtype) for count in rows]
    return found


@given(tensors())
@settings(max_examples=60, deadline=None)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, written: dict[str, list[npt.NDArray[Any]]]) -> None:
    path = tmp_path_factory.mktemp("written") / "model.safetensors"
    wanted = {name: np.concatenate(parts) for name, parts in written.items()}
    new = [NewTensor(name, NAMES[array.dtype.str], array.shape, tuple(written[name])) for name, array in wanted.items()]
    with path.open("wb") as file:
        write_tensors(file, new, {"format": "ours"})
    read = load_file(path)
    assert set(read) == set(wanted)
    for name, array in wanted.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)
    header = read_header(path, memoryview(path.read_bytes()))
    assert header.metadata == {"format": "ours"}
    for entry in header.entries:
        size = entry.end - entry.start
        assert entry.start % (ALIGNMENT if size % ALIGNMENT == 0 and size else wanted[entry.name].itemsize) == 0


def test_the_order_is_kept_where_it_can_be(tmp_path: Path) -> None:
    sizes = {"bias": 3, "panels": 64, "odd": 7, "scales": 128}
    with (tmp_path / "file").open("wb") as file:
        write_tensors(file, [NewTensor(n, "I8", (s,), (np.zeros(s, np.int8),)) for n, s in sizes.items()], {})
    header = read_header(tmp_path / "file", memoryview((tmp_path / "file").read_bytes()))
    assert [entry.name for entry in header.entries] == ["panels", "scales", "bias", "odd"]
