"""From a program and a checkpoint's tensors to the form that `_csrc` takes: buffers by index, weights as arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from .. import _csrc
from ..batch import Float32, Int64, Partials
from ..checkpoint.panels import PackedView, panel_file
from ..checkpoint.tensor_view import TensorView, as_float32
from ..errors import CheckpointError, InputError
from ..program.instructions import Attention, Embed, HeadNorm, Instruction, Routing, Tap
from ..program.operands import Buffer, LowRank, Weight
from ..program.positions import LengthScale, SelfExtend
from ..program.program import Program
from ..program.relative import bias_buckets
from ..program.rope import PositionScale, Rope

RELATIVE_PAD = 16
"""By how much the C++ kernels may read beyond the largest distance of a relative bias."""

Records = Mapping[tuple[int, str], Mapping[str, Any]]
"""Matrices in panels by the number of their instruction and their field, in the form of `_operand`."""

Inputs = Mapping[str, Float32]
"""How far the columns of the left operands of an instruction's products reach, by weight: [experts, k], or [1, k]."""


def bind(
    program: Program,
    tensors: Mapping[str, TensorView],
    isa: str,
    output: Buffer | None,
    records: Records = MappingProxyType({}),
) -> _csrc.Program:
    """The program with its weights.

    Args:
        program: a body or a tail.
        tensors: the checkpoint's, under the program's names.
        isa: the tier of instructions.
        output: the buffer of a tail that lies in the caller's array.
        records: matrices that are taken in place of the checkpoint's.

    Raises:
        CheckpointError: panels are not what the program needs.
        InputError: the tier is unknown or not available.
    """
    bound = empty(program, isa, output)
    for number in range(len(program.instructions)):
        add(bound, program, number, tensors, records=records)
    return bound


def read_tables(
    bound: _csrc.Program, program: Program, tensors: Mapping[str, TensorView], numbers: Iterable[int] | None = None
) -> None:
    """From now on rows of embedding tables are read from their files, so that no page of these is mapped in.

    Args:
        bound: the program, or those of its instructions that `numbers` are of.
        program: with their tables.
        tensors: the checkpoint's.
        numbers: by default of all instructions.
    """
    for number in range(len(program.instructions)) if numbers is None else numbers:
        step = program.instructions[number]
        for view in _views(step, tensors) if isinstance(step, Embed) else ():
            if view.is_mapped:
                with view.file.open("rb") as file:
                    bound.add_table_file(view.data, file.fileno(), view.offset)


def partial_arrays(partials: Partials) -> tuple[Int64, Int64, Float32, Float32]:
    """What a `pool` or a `combine` reads of a batch."""
    return partials.starts, partials.ends, partials.first_weight, partials.weight_step


def empty(program: Program, isa: str, output: Buffer | None = None) -> _csrc.Program:
    """A program with the buffers of another, and no instructions yet; raises as `bind`."""
    index = _index(program)
    try:
        return _csrc.Program(
            buffers=[(buffer.rows.value, buffer.width, buffer.dtype) for buffer in program.buffers],
            output=-1 if output is None else index[output.name],
            isa=isa,
        )
    except ValueError as error:
        raise InputError(str(error)) from error


def add(
    bound: _csrc.Program,
    program: Program,
    number: int,
    tensors: Mapping[str, TensorView],
    inputs: Inputs = MappingProxyType({}),
    records: Records = MappingProxyType({}),
) -> None:
    """Adds one instruction of a program, packs its weights, and lets their pages of the file leave memory.

    `inputs` are what samples showed, for int8; `records` as of `bind`.
    """
    step = program.instructions[number]
    fields = _fields(step, program, tensors, {field: it for (at, field), it in records.items() if at == number})
    if inputs:
        fields["inputs"] = dict(inputs)
    views = _views(step, tensors)
    try:
        bound.add(step.op, fields)
    except ValueError as error:
        held = panel_file(views)
        if held is None:
            raise
        raise CheckpointError(f"{held.path}: {error}.") from error
    if not isinstance(step, Embed):
        for view in views:
            view.release()


def _views(step: Instruction, tensors: Mapping[str, TensorView]) -> list[TensorView]:
    return [tensors[name] for weight in step.weights for name in weight.names]


def _index(program: Program) -> dict[str, int]:
    return {buffer.name: i for i, buffer in enumerate(program.buffers)}


def _fields(
    step: Instruction, program: Program, tensors: Mapping[str, TensorView], records: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    index = _index(program)
    values: dict[str, Any] = {}
    for spec in dataclasses.fields(step):
        value = getattr(step, spec.name)
        if spec.name in records:
            values[spec.name] = dict(records[spec.name])
            continue
        match value:
            case Buffer():
                value = index[value.name]
            case Weight():
                value = _operand(value, tensors)
            case LowRank():
                left, right = (_parts(weight, tensors) for weight in (value.left, value.right))
                value = {"left": left, "right": right, "tasks": value.tasks, "rank": value.rank, "scale": value.scale}
            case Rope():
                number = program.ropes.index(value)
                value = {"index": number, "size": value.size, "interleaved": value.interleaved}
            case PositionScale() | LengthScale():
                value = program.q_scales.index(value)
            case HeadNorm() | Routing() | SelfExtend():
                value = dataclasses.asdict(value)
        values[spec.name] = value
    if isinstance(step, Attention) and step.relative is not None:
        values["reach"] = step.relative.max_distance
        values["relative_bias"] = [(_by_distance(step, values["relative_bias"]), "F32")]
    if isinstance(step, Tap):
        values["layers"] = step.weight.size
    return values


def _operand(weight: Weight, tensors: Mapping[str, TensorView]) -> Any:
    """A weight as `_csrc` takes it: in panels, or as parts."""
    views = [tensors[name] for name in weight.names]
    held = panel_file(views)
    if held is None or not all(isinstance(view, PackedView) for view in views):
        return _parts(weight, tensors)
    return {"name": weight.key, "format": held.format, **held.parts(weight.key)}


def _parts(weight: Weight, tensors: Mapping[str, TensorView]) -> list[tuple[Any, str]]:
    return [(weight.arrange(tensors[name].data), tensors[name].dtype) for name in weight.names]


def _by_distance(step: Attention, parts: Sequence[tuple[Any, str]]) -> Float32:
    """A relative bias by query - key, padded at both ends: [H, 2 * (max_distance + pad) + 1]."""
    assert step.relative is not None
    assert step.relative_bias is not None
    table = np.concatenate([as_float32(data, dtype) for data, dtype in parts])
    by_distance = table[bias_buckets(step.relative, step.relative_bias.shape[0])[::-1]]
    padded = np.pad(by_distance, ((RELATIVE_PAD, RELATIVE_PAD), (0, 0)), mode="edge")
    return np.ascontiguousarray(padded.T)
