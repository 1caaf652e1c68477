"""What instructions work on: buffers of activations, and weights of the checkpoint by name.

Shapes are written with T tokens, P partials and N vectors.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt


class Rows(enum.Enum):
    """How many rows a buffer has. No buffer may grow faster than linearly in any of these."""

    TOKENS = "T"  # the tokens of one pack
    TILE = "tile"  # a fixed number of tokens, per thread
    PARTIALS = "P"  # one per (span, window)
    VECTORS = "N"  # one per output vector


Dtype = Literal["float32", "bfloat16"]
"""What a buffer's elements are."""


@dataclass(frozen=True, slots=True)
class Buffer:
    """A named matrix [rows, width] that instructions read and write."""

    name: str
    rows: Rows
    width: int
    dtype: Dtype = "float32"

    @property
    def row_bytes(self) -> int:
        """The bytes of one row."""
        return self.width * (2 if self.dtype == "bfloat16" else 4)

    def __str__(self) -> str:
        return f"{self.name}[{self.rows.value},{self.width}]{'' if self.dtype == 'float32' else ' ' + self.dtype}"


@dataclass(frozen=True, slots=True)
class Layout:
    """How a stored tensor lies, where it is not as the program wants it.

    The tensor of shape `stored` is seen as `folded`, its axes are permuted by `axes`, all but the last `kept` of them
    are flattened into rows, and the rows [first, last) are taken.

    Attributes:
        stored: the shape in the file.
        folded: the same elements with more axes; by default `stored`.
        axes: the permutation; by default none.
        kept: how many trailing axes a row has: 1 for a matrix, 0 for a vector.
        first, last: the rows that are taken; `last` None means to the end.
    """

    stored: tuple[int, ...]
    folded: tuple[int, ...] = ()
    axes: tuple[int, ...] = ()
    kept: int = 1
    first: int = 0
    last: int | None = None

    def arrange(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The stored array as the program wants it, C-contiguous; a copy only where the elements have to move."""
        if self.folded:
            array = array.reshape(self.folded)
        if self.axes:
            array = array.transpose(self.axes)
        rows = array.reshape(-1, *array.shape[array.ndim - self.kept :])
        return np.ascontiguousarray(rows[self.first : self.last])


@dataclass(frozen=True, slots=True)
class Weight:
    """A matrix or vector of the checkpoint, by name; several names are stacked along the first axis (fused q, k, v).

    Attributes:
        names: of the stored tensors.
        shape: of the whole.
        layout: how each stored tensor lies, where that is not simply as rows of `shape`.
        rows: how many rows each tensor gives, where they do not give equally many.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    layout: Layout | None = None
    rows: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def key(self) -> str:
        """A name for the whole: which tensors, and which of their rows."""
        rows = "" if self.layout is None or self.layout.last is None else f"[{self.layout.first}:{self.layout.last}]"
        return "+".join(self.names) + rows

    @property
    def stored(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each stored tensor, by name."""
        if self.layout is not None:
            return dict.fromkeys(self.names, self.layout.stored)
        rows = self.rows or (self.shape[0] // len(self.names),) * len(self.names)
        return {name: (count, *self.shape[1:]) for name, count in zip(self.names, rows, strict=True)}

    def arrange(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A stored tensor's array as rows of the weight."""
        return array if self.layout is None else self.layout.arrange(array)

    def __str__(self) -> str:
        return f"{'+'.join(self.names)}{list(self.shape)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRank:
    """What a weight gains for a task: scale * left[task] right[task], a low-rank pair for each task (LoRA).

    Attributes:
        left: [tasks * n, rank] for a weight [n, k].
        right: [tasks * rank, k].
        tasks: how many pairs there are.
        scale: of all of them.
    """

    left: Weight
    right: Weight
    tasks: int
    scale: float

    @property
    def rank(self) -> int:
        """How many columns `left` has."""
        return self.left.shape[1]

    def __str__(self) -> str:
        return f"rank{self.rank}x{self.tasks}"
