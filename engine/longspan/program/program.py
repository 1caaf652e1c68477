"""A program: instructions in order, checked once, printable, nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from .instructions import Attention, Embed, Instruction, Qkv
from .operands import Buffer, Rows, Weight
from .positions import LengthScale, PositionMap
from .rope import PositionScale, Rope


@dataclass(frozen=True, slots=True)
class Program:
    """An immutable list of instructions.

    Attributes:
        name: what it computes, for printing ("bert body").
        instructions: in the order of execution.
        inputs: buffers that are filled before the program starts (the tail's partials).
        outputs: buffers that are read after it ends.

    Raises:
        ValueError: an instruction reads a buffer that nothing has written, two buffers share a name, or stages run
            backwards.
    """

    name: str
    instructions: tuple[Instruction, ...]
    outputs: tuple[Buffer, ...]
    inputs: tuple[Buffer, ...] = ()

    def __post_init__(self) -> None:
        written = {buffer.name: buffer for buffer in self.inputs}
        stage = 0
        for instruction in self.instructions:
            if instruction.stage < stage:
                raise ValueError(f"{self.name}: {instruction.op} of stage {instruction.stage} follows stage {stage}")
            stage = instruction.stage
            for buffer in instruction.reads:
                if written.get(buffer.name) != buffer:
                    raise ValueError(f"{self.name}: {instruction.op} reads {buffer}, which nothing has written")
            for buffer in instruction.writes:
                if written.setdefault(buffer.name, buffer) != buffer:
                    raise ValueError(f"{self.name}: {buffer} and {written[buffer.name]} share a name")
        for buffer in self.outputs:
            if written.get(buffer.name) != buffer:
                raise ValueError(f"{self.name}: output {buffer} is never written")

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """Every buffer once, in order of first appearance."""
        seen: dict[str, Buffer] = {buffer.name: buffer for buffer in self.inputs}
        for instruction in self.instructions:
            for buffer in (*instruction.reads, *instruction.writes):
                seen.setdefault(buffer.name, buffer)
        return tuple(seen.values())

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Every weight once, in order of first use."""
        return tuple(dict.fromkeys(weight for instruction in self.instructions for weight in instruction.weights))

    @property
    def ropes(self) -> tuple[Rope, ...]:
        """Every kind of rotary positions once, in order of first use."""
        used = (step.rope for step in self.instructions if isinstance(step, Qkv | Attention))
        return tuple(dict.fromkeys(rope for rope in used if rope is not None))

    @property
    def q_scales(self) -> tuple[PositionScale | LengthScale, ...]:
        """Every scale of queries by position or length once, in order of first use."""
        used = (step.q_scale for step in self.instructions if isinstance(step, Qkv))
        return tuple(dict.fromkeys(scale for scale in used if scale is not None))

    @property
    def position_map(self) -> PositionMap | None:
        """Which rows of the table of learned positions are taken, if not those of the positions."""
        return next(
            (step.position_map for step in self.instructions if isinstance(step, Embed) and step.positions), None
        )

    @property
    def carried(self) -> frozenset[str]:
        """Names of the token buffers that are live across a stage boundary; all others are scratch of one stage."""
        written_in: dict[str, int] = {}
        carried = set()
        for instruction in self.instructions:
            for buffer in instruction.reads:
                if buffer.rows is Rows.TOKENS and written_in.get(buffer.name) != instruction.stage:
                    carried.add(buffer.name)
            written_in.update((buffer.name, instruction.stage) for buffer in instruction.writes)
        return frozenset(carried)
