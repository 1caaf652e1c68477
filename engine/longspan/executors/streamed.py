"""Weights that do not all have to be in memory: where each stage's matrices lie in a file, and their places once read.

The file is the checkpoint's where that holds panels; else the matrices are packed into a file without a name, one
instruction at a time, so that loading takes no more memory than running.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from .. import _csrc
from ..checkpoint.panels import PARTS, PackedView, panel_file, stacked
from ..checkpoint.tensor_view import TensorView
from ..errors import CheckpointError
from ..program.formats import matrices_of
from ..program.operands import Weight
from ..program.program import Program
from ..weights import Format
from .binding import Inputs, Records, add, empty

ALIGNMENT = 64

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


def packed_away(
    body: Program, tensors: Mapping[str, TensorView], isa: str, inputs: Inputs = ()
) -> tuple[IO[bytes], Stored]:
    """Packs the body's matrices into a file that is gone once it is closed, one instruction at a time.

    Raises:
        CheckpointError: the file cannot be written, as on a full disk.
    """
    stored: dict[Place, dict[str, StoredArray]] = {}
    folder = tempfile.gettempdir()
    try:
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # it outlives this function
        for number, step in enumerate(body.instructions):
            if not any(True for _ in matrices_of(step)):
                continue
            one = empty(body, isa)
            add(one, body, number, tensors, inputs)
            for field, matrices in one.panels_of(0).items():
                stored[number, field] = dict(_write(file, matrices))
        file.flush()
    except OSError as error:
        raise CheckpointError(
            f"{folder}: the weights do not fit in memory, and cannot be packed into a file there: {error.strerror}; "
            "set TMPDIR to a folder with more room, or load a model folder that `save` wrote."
        ) from error
    return file, stored


def _write(
    file: IO[bytes], matrices: Sequence[tuple[npt.NDArray[Any] | None, ...]]
) -> Iterator[tuple[str, StoredArray]]:
    """Appends a matrix, or those of several experts one after another; part by part."""
    for part, arrays, shape in stacked(matrices):
        offset = -(-file.seek(0, os.SEEK_END) // ALIGNMENT) * ALIGNMENT
        file.seek(offset)
        for array in arrays:
            file.write(array.data)
        yield part, StoredArray(offset, arrays[0].dtype, shape)
