"""What every family is written with: the body that it makes, and short words for buffers and weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from ..program.instructions import Instruction, Pool
from ..program.operands import Buffer, Layout, Rows, Weight
from ..program.program import Program
from .config import ModelConfig


@dataclass(frozen=True, slots=True)
class Body:
    """A model up to its token vectors.

    Attributes:
        name: of the family.
        instructions: the embedding (stage 0) and the layers (stages 1 to L), in order.
        output: the buffer [T, D] that ends up with the token vectors.
        max_positions: how many positions the checkpoint was made for, special tokens included.
        inputs: buffers that the executor fills before the first instruction.
        ending: what comes after the layers, such as a last norm; of the stage after them.
        prefixes: what checkpoints of this family put before all tensor names.
        renamed: endings of tensor names, and what older checkpoints have instead.
        padding: the token whose copies in a text take no position, but the row before the first: those of a literal
            "<pad>", in models that make positions from ids.
        extension: how `max_positions` came to be more than the checkpoint was made for, in words.
    """

    name: str
    instructions: tuple[Instruction, ...]
    output: Buffer
    max_positions: int
    inputs: tuple[Buffer, ...] = ()
    ending: tuple[Instruction, ...] = ()
    prefixes: tuple[str, ...] = ("",)
    renamed: tuple[tuple[str, str], ...] = ()
    padding: int | None = None
    extension: str | None = None

    @property
    def stream(self) -> Buffer:
        """The buffer [T, D] that holds what each layer made: the last that the last layer writes."""
        return self.instructions[-1].writes[0]

    @property
    def layers(self) -> int:
        """The number of layers L."""
        return max((step.stage for step in self.instructions), default=0)

    def pooled(self, kinds: Sequence[PoolKind]) -> Program:
        """The body as a program that ends in one `pool` per kind; their outputs are the program's, in order."""
        stage = self.layers + 1
        pools = tuple(
            Pool(stage=stage, x=self.output, out=partials_buffer(index, self.output.width), kind=kind, index=index)
            for index, kind in enumerate(kinds)
        )
        ending = tuple(replace(step, stage=stage) for step in self.ending)
        steps = (*self.instructions, *ending, *pools)
        return Program(self.name, steps, outputs=tuple(pool.out for pool in pools), inputs=self.inputs)


PoolKind = Literal["sum", "maximum"]


def partials_buffer(index: int, width: int) -> Buffer:
    """The buffer [P, D] between a body's `pool` number `index` and the tail's `combine` of the same number."""
    return Buffer(f"partials{index}", Rows.PARTIALS, width)


def tokens_buffer(name: str, width: int) -> Buffer:
    """A buffer [T, width]."""
    return Buffer(name, Rows.TOKENS, width)


def tile_buffer(name: str, width: int) -> Buffer:
    """A buffer [tile, width]: scratch of one thread."""
    return Buffer(name, Rows.TILE, width)


def weight(name: str, *shape: int) -> Weight:
    """A weight by its name in the checkpoint, without the prefix that some checkpoints put before all names."""
    return Weight((name,), shape)


def stacked(names: Sequence[str], shape: tuple[int, ...]) -> Weight:
    """Several weights of one shape, stacked along the first axis."""
    return Weight(tuple(names), (shape[0] * len(names), *shape[1:]))


def rows_of(name: str, stored: tuple[int, ...], first: int, last: int) -> Weight:
    """The rows [first, last) of a stored matrix or vector, which holds others too."""
    columns = stored[1:]
    return Weight((name,), (last - first, *columns), Layout(stored, kept=len(columns), first=first, last=last))


def transposed(name: str, rows: int, columns: int) -> Weight:
    """A matrix [rows, columns] that is stored as [columns, rows]."""
    return Weight((name,), (rows, columns), Layout((columns, rows), axes=(1, 0)))


TEXT_PREFIXES = ("language_model.", "model.language_model.", "language_model.model.")
"""Where models of images and text keep their model of text."""

Family = Callable[[ModelConfig], Body]


def beneath(body: Body, at: str) -> Body:
    """The same body with the names of all its tensors behind `at`."""

    def moved(step: Instruction) -> Instruction:
        changes: dict[str, Any] = {}
        for spec in fields(step):
            value = getattr(step, spec.name)
            if isinstance(value, Weight):
                changes[spec.name] = replace(value, names=tuple(f"{at}.{name}" for name in value.names))
        return replace(step, **changes)

    instructions, ending = tuple(map(moved, body.instructions)), tuple(map(moved, body.ending))
    return replace(body, instructions=instructions, ending=ending)


def both_sides(family: Family) -> Family:
    """A causal family whose checkpoints see both sides, unless their config says otherwise."""
    return lambda config: family(config.completed({"is_causal": False}))
