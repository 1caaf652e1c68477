"""A program in another format: its matrices narrower, and with them what only products read and write."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import replace

from ..weights import Format
from .instructions import Attention, Instruction, Linear, Mlp, Moe, Qkv
from .operands import Buffer, Weight
from .program import Program

Product = Linear | Qkv | Mlp | Moe
"""Instructions whose matrices have a format."""


def matrices_of(step: Instruction) -> Iterator[tuple[str, Weight]]:
    """The matrices of an instruction that have a format, with their fields."""
    if isinstance(step, Product):
        for field in ("weight", "up", "gate", "down"):
            weight: Weight | None = getattr(step, field, None)
            if weight is not None:
                yield field, weight


def in_format(program: Program, wanted: Format) -> Program:
    """The program with all of its matrices in a format.

    The residual stream, embeddings, norms and poolings stay float32. Unless the format is float32, buffers that only
    products, attention and the ends of norms use become bfloat16: what these round to anyway.
    """
    if wanted == "float32":
        return program
    wide = {buffer.name for buffer in (*program.inputs, *program.outputs)}
    for step in program.instructions:
        wide.update(buffer.name for buffer in step.wide)
    steps = tuple(_narrowed(step, wide, wanted) for step in program.instructions)
    return replace(program, instructions=steps)


def with_int8_attention(program: Program) -> Program:
    """The program with products of bytes in attention too, where queries and keys are not turned there."""
    steps = tuple(
        replace(step, int8=True) if isinstance(step, Attention) and step.rope is None else step
        for step in program.instructions
    )
    return replace(program, instructions=steps)


def _narrowed(step: Instruction, wide: set[str], wanted: Format) -> Instruction:
    changes: dict[str, object] = {}
    for spec in dataclasses.fields(step):
        value = getattr(step, spec.name)
        if isinstance(value, Buffer) and value.name not in wide:
            changes[spec.name] = replace(value, dtype="bfloat16")
    if isinstance(step, Product):
        changes["format"] = wanted
    return replace(step, **changes)  # type: ignore[arg-type]
