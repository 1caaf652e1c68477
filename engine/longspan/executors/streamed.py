"""Weights that do not all have to be in memory: where each stage's matrices lie in a file, and their places once read.

The file is the checkpoint's where that holds panels; else one without a name, see `stages.packed_away`.
"""

from __future__ import annotations

import math
import mmap
import os
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from .. import _csrc
from ..checkpoint.header import itemsize
from ..checkpoint.panels import PARTS, PackedView, panel_file
from ..checkpoint.tensor_view import TensorView
from ..program.formats import matrices_of
from ..program.operands import Weight
from ..program.program import Program
from ..weights import Format
from .binding import Records

Place = tuple[int, str]
"""The number of an instruction, and a field of it that is a matrix."""


@dataclass(frozen=True, slots=True)
class StoredArray:
    """An array in a file: `offset` is its first byte."""

    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Its size."""
        return math.prod(self.shape) * self.dtype.itemsize

    def of(self, mapped: mmap.mmap) -> npt.NDArray[Any]:
        """The array, a view of the file's map."""
        return np.frombuffer(mapped, self.dtype, math.prod(self.shape), self.offset).reshape(self.shape)


Stored = Mapping[Place, Mapping[str, StoredArray]]
"""The parts of each matrix, by the names of `checkpoint.panels.PARTS`."""


class StreamedWeights:
    """The matrices of a body, read from a file while it runs.

    Args:
        body: the program.
        format: of the matrices.
        name: what the file is called, for messages.
        file: open; it may be closed afterwards.
        stored: where the matrices lie in it.

    Attributes:
        name: of the file.
        stream: what reads.
        stage_bytes: what each stage takes once it is read; in whole pages.
    """

    def __init__(self, body: Program, format: Format, name: str, file: IO[bytes], stored: Stored) -> None:
        self.name = name
        self._format, self._stored, self._body = format, stored, body
        order = {stage: number for number, stage in enumerate(dict.fromkeys(step.stage for step in body.instructions))}
        self._stages = [order[step.stage] for step in body.instructions]
        spans: list[list[tuple[int, int]]] = [[] for _ in order]
        self._places: dict[tuple[Place, str], tuple[int, int]] = {}
        for place, parts in stored.items():
            stage = self._stages[place[0]]
            for part, array in parts.items():
                self._places[place, part] = stage, len(spans[stage])
                spans[stage].append((array.offset, array.bytes))
        self._file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._file)
        self.stream = _csrc.WeightStream(file.fileno(), spans)
        self.stage_bytes = tuple(self.stream.bytes(stage) for stage in range(len(order)))

    def panels(self) -> Iterator[tuple[Weight, list[Any]]]:
        """The matrices as they lie in the file, those of experts together; views of its map."""
        mapped = mmap.mmap(self._file, 0, access=mmap.ACCESS_READ)
        for (number, field), parts in self._stored.items():
            arrays = (None if (array := parts.get(part)) is None else array.of(mapped) for part in PARTS)
            yield getattr(self._body.instructions[number], field), [tuple(arrays)]

    @property
    def records(self) -> Records:
        """The matrices at their places in memory, as `bind` takes them."""
        return {place: self._record(place) for place in self._stored}

    def _record(self, place: Place) -> dict[str, Any]:
        weight: Weight = getattr(self._body.instructions[place[0]], place[1])
        arrays = {
            part: self.stream.view(*self._places[place, part]).view(array.dtype).reshape(array.shape)
            for part, array in self._stored[place].items()
        }
        return {"name": weight.key, "format": self._format, **arrays}


def packed_bytes(body: Program, format: Format) -> int:
    """About what the body's matrices take once they are packed: rows of panels, columns of whole lines."""
    size, group = {"float32": (4, 1), "bfloat16": (2, 32), "int8": (1, 64)}[format]
    shapes = (weight.shape for step in body.instructions for _, weight in matrices_of(step))
    return sum(-(-rows // 16) * 16 * -(-columns // group) * group * size for rows, columns in shapes)


def source_bytes(body: Program, tensors: Mapping[str, TensorView]) -> int:
    """The most that an instruction's matrices take in the checkpoint, whose pages are there while it is packed."""
    most = 0
    for step in body.instructions:
        views = [tensors[name] for _, weight in matrices_of(step) for name in weight.names]
        most = max(most, sum(math.prod(view.shape) * itemsize(view.dtype) for view in views))
    return most


def stored_panels(body: Program, tensors: Mapping[str, TensorView]) -> tuple[Path, Stored] | None:
    """Where the checkpoint itself holds the body's matrices in panels, or None if it does not."""
    held = panel_file(tensors.values())
    if held is None:
        return None
    stored: dict[Place, dict[str, StoredArray]] = {}
    for number, step in enumerate(body.instructions):
        for field, weight in matrices_of(step):
            if all(isinstance(tensors[name], PackedView) for name in weight.names):
                held.parts(weight.key)  # which is there
                stored[number, field] = {
                    part: StoredArray(view.offset, view.data.dtype, view.data.shape)
                    for part in PARTS
                    if (view := held.tensors.get(f"{weight.key}.{part}")) is not None
                }
    return held.path, stored
