"""Rotary positions as data: which frequencies turn which components, and how that depends on a segment's length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..batch import Float32, Int32, Int64

_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Frequencies:
    """What position p turns pair i by: p * inverse[i]; sines and cosines are multiplied by `scale`.

    Attributes:
        inverse: [R / 2] float32 values.
        scale: the attention factor of YaRN and LongRoPE.
    """

    inverse: tuple[float, ...]
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class DynamicNtk:
    """Frequencies of a segment that is longer than `original` tokens, by its length n.

    The base becomes base * (factor * n / original - (factor - 1)) ** (R / (R - 2)).
    """

    base: float
    factor: float
    original: int


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary position embedding of queries and keys (RoFormer, arXiv 2104.09864).

    Attributes:
        size: R, how many leading components of a head are turned.
        usual: the frequencies.
        interleaved: whether the pairs are (2i, 2i + 1), instead of (i, i + R / 2).
        long: the frequencies of segments of more than `original` tokens (LongRoPE), or how to compute them (NTK).
        original: as above.
    """

    size: int
    usual: Frequencies
    interleaved: bool = False
    long: Frequencies | DynamicNtk | None = None
    original: int = 0

    def __str__(self) -> str:
        ways = ("interleaved" if self.interleaved else "", "by length" if self.long else "")
        return "/".join(filter(None, (str(self.size), *ways)))

    def of_length(self, tokens: int) -> Frequencies:
        """The frequencies of a segment of so many tokens."""
        if self.long is None or tokens <= self.original:
            return self.usual
        if isinstance(self.long, Frequencies):
            return self.long
        stretched = self.long.factor * tokens / self.long.original - (self.long.factor - 1)
        base = self.long.base * stretched ** (self.size / (self.size - 2))
        return Frequencies(inverse_frequencies(base, self.size), self.usual.scale)


@dataclass(frozen=True, slots=True)
class PositionScale:
    """Queries at position p are multiplied by 1 + beta * ln(1 + floor(p / original))."""

    beta: float
    original: int

    def of_batch(self, positions: Int32, cu_seqlens: Int64) -> Float32:
        """[T] factors of a batch of T tokens at `positions` [T], in segments of `cu_seqlens`."""
        return (1 + self.beta * np.log1p(np.floor(positions / self.original))).astype(np.float32)


@dataclass(frozen=True, slots=True)
class RopeTable:
    """The sines and cosines that a batch needs.

    Attributes:
        rows: [T] the row of each token.
        values: [rows, R]: R / 2 cosines, then R / 2 sines.
    """

    rows: Int32
    values: Float32


def inverse_frequencies(base: float, size: int) -> tuple[float, ...]:
    """base ** (-2i / size) for i below size / 2, rounded to float32 in the steps in which checkpoints were trained."""
    exponents = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
    powers = (np.float64(base) ** exponents.astype(np.float64)).astype(np.float32)
    return tuple((np.float32(1) / powers).tolist())


def rope_values(frequencies: Frequencies, positions: int) -> Float32:
    """[positions, R] float32: cosines, then sines, of positions from 0 on; angles are rounded to float32."""
    inverse, scale = np.array(frequencies.inverse, np.float32), np.float32(frequencies.scale)
    half = len(inverse)
    values = np.empty((positions, 2 * half), np.float32)
    for first in range(0, positions, _BLOCK):  # what numpy holds meanwhile is a few times as large
        rows = values[first : first + _BLOCK]
        turns = np.arange(first, first + len(rows), dtype=np.float32)
        angles = (turns[:, None] * inverse).astype(np.float64)
        rows[:, :half], rows[:, half:] = np.cos(angles), np.sin(angles)
        rows *= scale
    return values


class RopeTables:
    """Makes the tables of batches; the values of one set of frequencies are computed once and grow by doubling."""

    def __init__(self) -> None:
        self._values: dict[Frequencies, Float32] = {}

    @staticmethod
    def bytes_of(rope: Rope, lengths: Int64) -> int:
        """The bytes of the values for segments of these lengths."""
        kinds = {rope.of_length(length) for length in np.unique(lengths).tolist()} if rope.long else {rope.usual}
        return len(kinds) * int(lengths.max(initial=0)) * rope.size * 4

    def growth(self, rope: Rope, lengths: Int64) -> int:
        """How many of these bytes are not in memory yet, about."""
        known = sum(values.nbytes for values in self._values.values())
        return max(self.bytes_of(rope, lengths) - known, 0)

    def of_batch(self, rope: Rope, positions: Int32, cu_seqlens: Int64) -> RopeTable:
        """The table of a batch of T tokens at `positions` [T], in segments of `cu_seqlens`."""
        reach = int(positions.max(initial=-1)) + 1
        if rope.long is None:
            return RopeTable(positions, self._at_least(rope.usual, reach))
        lengths = np.diff(cu_seqlens)
        offsets = np.zeros(len(lengths), np.int64)
        blocks: dict[Frequencies, Float32] = {}
        starts: dict[Frequencies, int] = {}
        for length in np.unique(lengths).tolist():
            frequencies = rope.of_length(length)
            if frequencies not in blocks:
                starts[frequencies] = sum(map(len, blocks.values()))
                kept = frequencies in (rope.usual, rope.long)
                blocks[frequencies] = (self._at_least if kept else rope_values)(frequencies, reach)
            offsets[lengths == length] = starts[frequencies]
        values = np.concatenate(list(blocks.values())) if blocks else np.zeros((0, rope.size), np.float32)
        return RopeTable((positions + np.repeat(offsets, lengths)).astype(np.int32), values)

    def _at_least(self, frequencies: Frequencies, positions: int) -> Float32:
        known = self._values.get(frequencies)
        if known is None or len(known) < positions:
            count = max(positions, 2 * len(known) if known is not None else 0)
            known = self._values[frequencies] = rope_values(frequencies, count)
        return known
