"""One tensor of a checkpoint, as it lies in its file."""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, eq=False)
class TensorView:
    """One tensor of a file.

    Attributes:
        name: as in the file.
        dtype: as in the file: "F32", "BF16", "I64".
        shape: as in the file.
        data: read-only and aligned; BF16 as its uint16 bits and F8 as uint8. A tensor that lies misaligned in the
            file, which writers avoid, is the one case that is copied.
        file: where it lies.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: npt.NDArray[Any] = field(repr=False)
    file: Path
    _map: mmap.mmap | None = field(default=None, repr=False)
    _start: int = field(default=0, repr=False)

    @property
    def is_mapped(self) -> bool:
        """Whether `data` is a view of the file's map, and no copy."""
        if self._map is None or not self.data.size:
            return False
        return bool(np.frombuffer(self._map, np.uint8, 1, self._start).ctypes.data == self.data.ctypes.data)

    @property
    def offset(self) -> int:
        """Where it begins in its file, in bytes."""
        return self._start

    def release(self) -> None:
        """Gives the resident pages that lie wholly in this tensor back; `data` stays readable, from the file again."""
        if self._map is None:
            return
        first = -(-self._start // mmap.PAGESIZE) * mmap.PAGESIZE
        last = (self._start + self.data.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if first < last and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, first, last - first)


def as_float32(data: npt.NDArray[Any], dtype: str) -> npt.NDArray[np.float32]:
    """An array of a `TensorView` as float32; a copy unless it is float32 already."""
    if dtype == "BF16":
        return (data.astype(np.uint32) << 16).view(np.float32)
    return data.astype(np.float32, copy=False)
