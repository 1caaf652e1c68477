"""How a model meets positions beyond those it was made for, as data; what is extended is said in `models/extend.py`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..batch import Float32, Int32, Int64


@dataclass(frozen=True, slots=True)
class PositionMap:
    """Which row of a table of learned positions serves position p of a segment of n tokens.

    "recurrent": p mod original. "grouped": floor(p / ceil(n / original)). "interpolated": the table has `factor` rows
    for each of the `original` ones; a segment that these suffice for takes row p * factor, a longer one row p.
    A token without a position, at -1, keeps that.

    Attributes:
        kind: as above.
        original: how many positions the model was made for.
        factor: as above.
    """

    kind: Literal["recurrent", "grouped", "interpolated"]
    original: int
    factor: int = 1

    def __str__(self) -> str:
        return f"{self.kind}/{self.original}"

    def of_batch(self, positions: Int32, cu_seqlens: Int64) -> Int32:
        """[T] the rows of a batch of T tokens at `positions` [T], in segments of `cu_seqlens`."""
        lengths = np.diff(cu_seqlens)
        tokens = np.repeat(lengths, lengths)
        rows: Int64
        if self.kind == "recurrent":
            rows = positions % np.int64(self.original)
        elif self.kind == "grouped":
            rows = positions // np.maximum(-(-tokens // self.original), 1)
        else:
            rows = np.where(tokens > self.original, positions, positions * np.int64(self.factor))
        return np.where(positions < 0, positions, rows).astype(np.int32)


@dataclass(frozen=True, slots=True)
class LengthScale:
    """Queries of a segment of n tokens are multiplied by max(1, ln n / ln original), so that attention stays sharp.

    Arguments for it: arXiv 2202.12172.
    """

    original: int

    def __str__(self) -> str:
        return f"ln/{self.original}"

    def of_batch(self, positions: Int32, cu_seqlens: Int64) -> Float32:
        """[T] factors of a batch of T tokens at `positions` [T], in segments of `cu_seqlens`."""
        lengths = np.diff(cu_seqlens)
        factors = np.log(np.maximum(lengths, self.original)) / math.log(self.original)
        return np.repeat(np.where(lengths > self.original, factors, 1.0), lengths).astype(np.float32)


@dataclass(frozen=True, slots=True)
class SelfExtend:
    """Relative positions of far keys are shared by groups (SelfExtend, arXiv 2401.01325).

    In segments of more than `original` tokens, key j at a distance |i - j| of `near` or more from query i counts as at
    the relative position i' - j' + near' where j is before i, and i' - j' - near' where it is after, with i' =
    floor(i / group), j' = floor(j / group), near' = near - floor(near / group). Nearer keys keep theirs.

    Raises:
        ValueError: `group` is less than 2, `near` less than 1, or `original` less than four times `near`. Then no row
            of a rotary table beyond the segment's length is needed.
    """

    original: int
    group: int
    near: int

    def __post_init__(self) -> None:
        if self.group < 2 or self.near < 1 or self.original < 4 * self.near:
            raise ValueError(f"{self} are no groups: expected 2 or more, near 1 or more, and original 4 * near or more")

    def __str__(self) -> str:
        return f"{self.group} beyond {self.near}/{self.original}"

    @property
    def shift(self) -> int:
        """By how much groups are moved away, so that they follow the near positions: near' above."""
        return self.near - self.near // self.group
