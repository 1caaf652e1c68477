"""Where each buffer lives: one arena per lane, whose size is known to the byte before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from .operands import Buffer, Rows
from .program import Program


@dataclass(frozen=True, slots=True)
class Extents:
    """How many rows there are of each kind that the arena holds."""

    tokens: int
    tile: int
    vectors: int

    def rows(self, buffer: Buffer) -> int:
        """The rows of one buffer.

        Raises:
            ValueError: the buffer holds partials, which do not live in the arena.
        """
        if buffer.rows is Rows.PARTIALS:
            raise ValueError(f"{buffer} does not live in the arena")
        return {Rows.TOKENS: self.tokens, Rows.TILE: self.tile, Rows.VECTORS: self.vectors}[buffer.rows]


@dataclass(frozen=True, slots=True)
class Arena:
    """A place for every buffer, except those of partials: the executor hands those in and out.

    Attributes:
        offsets: bytes from the arena's start, by buffer name.
        size: bytes.
    """

    offsets: Mapping[str, int]
    size: int


@dataclass(frozen=True, slots=True)
class Block:
    """A buffer as the arena sees it: how many bytes, and the instructions during which they are its own."""

    name: str
    size: int
    first: int
    last: int  # inclusive

    def meets(self, other: Block) -> bool:
        """Whether both are live at some instruction."""
        return self.first <= other.last and other.first <= self.last


def live_ranges(program: Program) -> dict[str, tuple[int, int]]:
    """The first and last instruction, by index, at which each buffer is live.

    Inputs are live from -1 on, before the first instruction, and outputs until after the last.
    """
    ranges = {buffer.name: (-1, -1) for buffer in program.inputs}
    for index, instruction in enumerate(program.instructions):
        for buffer in (*instruction.reads, *instruction.writes):
            first, _ = ranges.get(buffer.name, (index, index))
            ranges[buffer.name] = (first, index)
    for buffer in program.outputs:
        ranges[buffer.name] = (ranges[buffer.name][0], len(program.instructions))
    return ranges


def blocks_of(program: Program, extents: Extents, alignment: int) -> list[Block]:
    """The buffers that live in the arena, in order of first appearance, with sizes rounded up to the alignment."""
    ranges = live_ranges(program)
    blocks = []
    for buffer in program.buffers:
        if buffer.rows is not Rows.PARTIALS:
            size = extents.rows(buffer) * buffer.row_bytes
            blocks.append(Block(buffer.name, -(-size // alignment) * alignment, *ranges[buffer.name]))
    return blocks


def live_bytes(program: Program, extents: Extents, *, alignment: int = 64) -> int:
    """The most bytes that are live at one instruction: no placement can be smaller."""
    blocks = blocks_of(program, extents, alignment)
    return max((sum(b.size for b in blocks if b.first <= start.first <= b.last) for start in blocks), default=0)


def first_fit(blocks: Iterable[Block]) -> Arena:
    """Put each block, in the order given, at the lowest offset that is free while it is live."""
    placed: list[tuple[int, Block]] = []
    for block in blocks:
        offset = 0
        for start, other in sorted((item for item in placed if item[1].meets(block)), key=lambda item: item[0]):
            if offset + block.size <= start:
                break
            offset = max(offset, start + other.size)
        placed.append((offset, block))
    size = max((offset + block.size for offset, block in placed), default=0)
    return Arena({block.name: offset for offset, block in placed}, size)


ORDERS: tuple[Callable[[Block], tuple[int, int]], ...] = (
    lambda block: (-block.size, block.first),
    lambda block: (block.first - block.last, -block.size),  # the longest-lived first
    lambda block: (block.first, -block.last),
    lambda block: (-block.last, block.first),
)


def place(program: Program, extents: Extents, *, alignment: int = 64, without: Collection[str] = ()) -> Arena:
    """Give every buffer a place; buffers share bytes only if no instruction lies in the live ranges of both.

    A buffer is live from its first write to its last use, inputs from the start and outputs to the end; what one
    instruction reads and writes is live together. First-fit in a few orders, of which the smallest result counts.

    Args:
        program: whose buffers are placed.
        extents: how many rows they have.
        alignment: of every offset and of the size, in bytes.
        without: names of buffers that live elsewhere.
    """
    blocks = [block for block in blocks_of(program, extents, alignment) if block.name not in without]
    return min((first_fit(sorted(blocks, key=order)) for order in ORDERS), key=lambda arena: arena.size)
