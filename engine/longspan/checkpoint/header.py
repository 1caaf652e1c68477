"""The header of a safetensors file, checked in full before anything is read through it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError

# The numpy type that a tensor is seen as; types that numpy lacks are seen as their bits.
NUMPY_TYPES = {
    "BOOL": "|b1",
    "U8": "|u1",
    "I8": "|i1",
    "U16": "<u2",
    "I16": "<i2",
    "U32": "<u4",
    "I32": "<i4",
    "U64": "<u8",
    "I64": "<i8",
    "F16": "<f2",
    "BF16": "<u2",
    "F32": "<f4",
    "F64": "<f8",
    "F8_E4M3": "|u1",
    "F8_E5M2": "|u1",
    "F8_E8M0": "|u1",
}
PREFIX_BYTES = 8
MAX_HEADER_BYTES = 100_000_000
LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a file; `start` and `end` count bytes from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself: its tensors in order of their bytes, and what its writer added."""

    entries: tuple[Entry, ...]
    metadata: Mapping[str, object]


def itemsize(dtype: str) -> int:
    """The bytes of one element."""
    return int(NUMPY_TYPES[dtype][2:])


def read_header(path: Path, content: memoryview) -> Header:
    """The header of a mapped file.

    Args:
        path: the file, for messages.
        content: all its bytes; only the header is touched.

    Raises:
        CheckpointError: the file is a Git LFS pointer, is truncated or too long, or its header contradicts itself.
    """
    size = len(content)
    if bytes(content[: len(LFS_POINTER)]) == LFS_POINTER:
        raise CheckpointError(f"{path} is a Git LFS pointer, not the weights; run `git lfs pull` or download it again.")
    if size < PREFIX_BYTES:
        raise CheckpointError(
            f"{path} is truncated: a safetensors file starts with {PREFIX_BYTES} bytes of length, "
            f"the file has {size}; download it again."
        )
    length = int.from_bytes(content[:PREFIX_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(
            f"{path} is not a safetensors file: it declares a header of {length} bytes, and at most "
            f"{MAX_HEADER_BYTES} are allowed; download it again."
        )
    payload = PREFIX_BYTES + length
    if payload > size:
        raise CheckpointError(
            f"{path} is truncated: its header takes {payload} bytes, the file has {size}; download it again."
        )
    header = _parse(path, bytes(content[PREFIX_BYTES:payload]))
    metadata = header.pop("__metadata__", None)
    entries = [_entry(path, name, info, payload) for name, info in header.items()]
    entries.sort(key=lambda entry: (entry.start, entry.end))
    _check_layout(path, entries, payload, size)
    return Header(tuple(entries), metadata if isinstance(metadata, dict) else {})


def _parse(path: Path, raw: bytes) -> dict[str, object]:
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise CheckpointError(f"{path}: its header names {twice!r} twice; download it again.")
        return found

    try:
        header: object = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is not a safetensors file: its header is not JSON ({error}); download it again."
        ) from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path} is not a safetensors file: its header is not a JSON object; download it again.")
    return header


def _entry(path: Path, name: str, info: object, payload: int) -> Entry:
    """One tensor's description with its types, and its size against its shape, checked."""

    def wrong(reason: str) -> CheckpointError:
        return CheckpointError(f"{path}: tensor {name!r} {reason}.")

    if not isinstance(info, dict):
        raise wrong("is not described by an object; download the file again")
    dtype, shape, offsets = info.get("dtype"), info.get("shape"), info.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in NUMPY_TYPES:
        raise wrong(f"has the dtype {dtype!r}; known are {', '.join(NUMPY_TYPES)}")
    if not isinstance(shape, list) or not all(_is_size(dimension) for dimension in shape):
        raise wrong(f"has the shape {shape!r}; a list of non-negative integers is needed")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_size(offset) for offset in offsets):
        raise wrong(f"has the data_offsets {offsets!r}; two non-negative integers are needed")
    start, end = offsets
    needed = math.prod(shape) * itemsize(dtype)
    if end - start != needed:
        raise wrong(f"has data_offsets {offsets} of {end - start} bytes, but {dtype} {shape} takes {needed}")
    return Entry(name, dtype, tuple(shape), payload + start, payload + end)


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _check_layout(path: Path, entries: Sequence[Entry], payload: int, size: int) -> None:
    """Tensors must follow each other without gaps up to the last byte: anything else is a damaged file."""
    at = payload
    for entry in entries:
        if entry.start < at:
            raise CheckpointError(f"{path}: tensor {entry.name!r} overlaps another; download the file again.")
        if entry.start > at:
            raise CheckpointError(
                f"{path}: {entry.start - at} bytes before tensor {entry.name!r} belong to no tensor; "
                "download the file again."
            )
        at = entry.end
    if at > size:
        last = next(entry.name for entry in entries if entry.end > size)
        raise CheckpointError(
            f"{path} is truncated: header promises {at} bytes, the file has {size} "
            f"(tensor {last!r} is cut); download it again."
        )
    if at < size:
        raise CheckpointError(
            f"{path} has {size - at} bytes after its last tensor: header promises {at} bytes, the file has {size}; "
            "download it again."
        )
