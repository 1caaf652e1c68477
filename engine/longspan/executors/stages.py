"""Packs a body stage by stage: samples go along, and the stages come together in memory, or go to a file."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import IO, Any

import numpy.typing as npt

from .. import _csrc
from ..checkpoint.panels import stacked
from ..checkpoint.tensor_view import TensorView
from ..errors import CheckpointError
from ..program.formats import matrices_of
from ..program.instructions import Pool
from ..program.program import Program
from .binding import Inputs, add, empty, read_tables
from .smoothing import SampleWalk
from .streamed import Place, Stored, StoredArray

ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class PackedStage:
    """A stage as it will run.

    Attributes:
        numbers: of its instructions in the body.
        program: these alone, over the buffers of the body.
    """

    numbers: Sequence[int]
    program: _csrc.Program


def packed_stages(
    body: Program, tensors: Mapping[str, TensorView], isa: str, walk: SampleWalk | None, *, tables_mapped: bool
) -> Iterator[PackedStage]:
    """The stages in order, each packed when it is asked for.

    Args:
        body: the program.
        tensors: the checkpoint's.
        isa: the tier of instructions.
        walk: of samples, which smooth each stage, and then go on through it; for int8.
        tables_mapped: whether embedding tables are mapped; else their rows are read from the file.

    Raises:
        CheckpointError, InputError: as `bind`.
    """

    def packed(numbers: Sequence[int], inputs: Sequence[Inputs] = ()) -> _csrc.Program:
        program = empty(body, isa)
        for number, reach in zip(numbers, inputs or [{}] * len(numbers), strict=True):
            add(program, body, number, tensors, reach)
        if not tables_mapped:
            read_tables(program, body, tensors, numbers)
        return program

    for _, group in groupby(range(len(body.instructions)), lambda number: body.instructions[number].stage):
        numbers = tuple(group)
        steps = [body.instructions[number] for number in numbers]
        pools = any(isinstance(step, Pool) for step in steps)
        inputs: Sequence[Inputs] = ()
        if walk is not None and any(True for step in steps for _ in matrices_of(step)):
            inputs = walk.watch(packed(numbers), pools=pools)
        program = packed(numbers, inputs)
        if walk is not None:
            walk.go_on(program, pools=pools)
        yield PackedStage(numbers, program)
        del program  # no more than one stage is here at a time


def joined(body: Program, isa: str, stages: Iterable[PackedStage]) -> _csrc.Program:
    """The whole program."""
    program = empty(body, isa)
    for stage in stages:
        program.take(stage.program)
    return program


def packed_away(stages: Iterable[PackedStage]) -> tuple[IO[bytes], Stored]:
    """The matrices of all stages in a file that is gone once it is closed.

    They are written one stage after another, so that loading takes no more memory than running.

    Raises:
        CheckpointError: the file cannot be written, as on a full disk.
    """
    stored: dict[Place, Mapping[str, StoredArray]] = {}
    folder = tempfile.gettempdir()
    with _written_to(folder):
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # it outlives this function
    for stage in stages:
        with _written_to(folder):
            stored |= _put_away(file, stage)
        del stage
    return file, stored


def _put_away(file: IO[bytes], stage: PackedStage) -> Stored:
    """Appends a stage's matrices."""
    stored: dict[Place, Mapping[str, StoredArray]] = {}
    for index, number in enumerate(stage.numbers):
        for field, matrices in stage.program.panels_of(index).items():
            stored[number, field] = dict(_write(file, matrices))
    file.flush()
    return stored


@contextlib.contextmanager
def _written_to(folder: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{folder}: the weights do not fit in memory, and cannot be packed into a file there: {error.strerror}; "
            "set TMPDIR to a folder with more room, or load a model folder that `save` wrote."
        ) from error


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
