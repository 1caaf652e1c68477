"""A program as text: what `longspan info --program` shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from .instructions import Instruction
from .operands import Buffer, LowRank, Weight
from .program import Program

GAP = "  "


def format_program(program: Program) -> str:
    """A listing: a header with the counts, one line per instruction, one line per buffer. No newline at the end.

    An instruction's line has its index, stage, name, outputs ← inputs, then the shapes of its weights (`+bias` for the
    bias that goes with one, `+rank4x5` for low-rank pairs of rank 4 for 5 tasks) and the attributes that differ from
    their defaults.
    """
    elements = sum(weight.size for weight in program.weights)
    instructions, buffers = counted(len(program.instructions), "instruction"), counted(len(program.buffers), "buffer")
    header = f"{program.name}: {instructions}, {buffers}, {counted(elements, 'weight element')}"
    return "\n".join((header, "", *instruction_lines(program), "", *buffer_lines(program)))


def counted(number: int, noun: str) -> str:
    """ "1 buffer", "2,000 buffers"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def instruction_lines(program: Program) -> Iterator[str]:
    """The instructions as a table."""
    header = ("#", "stage", "op", "outputs", "← inputs", "weights, attributes")
    rows = [
        (
            str(index),
            str(op.stage),
            op.op,
            names(op.writes),
            f"← {names(op.reads)}" if op.reads else "",
            GAP.join(filter(None, (" ".join(weight_words(op)), " ".join(attribute_words(op))))),
        )
        for index, op in enumerate(program.instructions)
    ]
    return table([header, *rows], right=(0, 1))


def buffer_lines(program: Program) -> Iterator[str]:
    """The buffers as a table; carried ones, inputs and outputs are marked."""

    def marks(buffer: Buffer) -> str:
        sets = (("input", program.inputs), ("output", program.outputs))
        carried = ["carried"] if buffer.name in program.carried else []
        return ", ".join(carried + [word for word, members in sets if buffer in members])

    rows = [(buffer.name, buffer.rows.value, str(buffer.width), marks(buffer)) for buffer in program.buffers]
    return table([("buffer", "rows", "width", ""), *rows], right=(2,))


def names(buffers: Sequence[Buffer]) -> str:
    """The names, each once."""
    return ", ".join(dict.fromkeys(buffer.name for buffer in buffers))


def weight_words(op: Instruction) -> Iterator[str]:
    """One word per matrix: its role and shape, "up[1536,384]+bias+rank4x5"; the main weight has no role."""
    roles = {spec.name: getattr(op, spec.name) for spec in dataclasses.fields(op)}
    weights = {role: weight for role, weight in roles.items() if isinstance(weight, Weight)}
    for role, weight in weights.items():
        own_bias, own_pair = (name if role == "weight" else f"{role}_{name}" for name in ("bias", "low_rank"))
        of = role.removesuffix("bias").removesuffix("_") or "weight"
        if role.endswith("bias") and of in weights:
            continue  # named with its matrix
        shape = f"[{','.join(map(str, weight.shape))}]"
        pair = f"+{roles[own_pair]}" if roles.get(own_pair) is not None else ""
        yield ("" if role == "weight" else role) + shape + ("+bias" if own_bias in weights else "") + pair


def attribute_words(op: Instruction) -> Iterator[str]:
    """Everything else that differs from its default: "gelu", "heads=12", "eps=1e-12", "residual=x"."""
    for spec in dataclasses.fields(op):
        value = getattr(op, spec.name)
        if spec.name == "residual" and value is not None:
            yield f"residual={value.name}"
        shown = spec.name == "stage" or isinstance(value, Buffer | Weight | LowRank)
        if shown or value is None or value == spec.default:
            continue
        if isinstance(value, str):
            yield value
        elif isinstance(value, tuple):
            yield f"{spec.name}={len(value)} values"
        elif isinstance(value, bool):
            yield spec.name if value else f"not {spec.name}"
        else:
            yield f"{spec.name}={value:.6g}" if isinstance(value, float) else f"{spec.name}={value}"


def table(rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> Iterator[str]:
    """Rows with aligned columns, those of `right` at the right; nothing is left at the ends of lines."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield GAP.join(cells).rstrip()
