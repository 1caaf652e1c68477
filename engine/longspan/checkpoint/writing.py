"""Writes safetensors files whose tensors can be used where they lie in the map."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy.typing as npt

from .header import PREFIX_BYTES, itemsize

ALIGNMENT = 64


@dataclass(frozen=True, slots=True, eq=False)
class NewTensor:
    """A tensor to be written.

    Attributes:
        name, dtype, shape: as the file is to say.
        parts: arrays whose bytes make up the tensor, one after another; C-contiguous. They are asked for
            once, when it is written.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    parts: Iterable[npt.NDArray[Any]]

    @property
    def bytes(self) -> int:
        """Its size."""
        return math.prod(self.shape) * itemsize(self.dtype)


def write_tensors(file: IO[bytes], tensors: Iterable[NewTensor], metadata: Mapping[str, str]) -> None:
    """Writes a whole file.

    Nothing may lie between tensors. So those whose size is a multiple of 64 bytes come first, in the order given: they
    begin at such multiples. The others follow by the size of their elements, which they are aligned to.
    """
    ordered = sorted(tensors, key=lambda tensor: -itemsize(tensor.dtype) if tensor.bytes % ALIGNMENT else -ALIGNMENT)
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    start = 0
    for tensor in ordered:
        end = start + tensor.bytes
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(PREFIX_BYTES + len(text)) % ALIGNMENT)
    file.write(len(text).to_bytes(PREFIX_BYTES, "little") + text)
    for tensor in ordered:
        for part in tensor.parts:
            file.write(part.data if part.size else b"")
