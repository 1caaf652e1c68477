"""The instruction set: what a model is made of, as plain immutable data.

A program is a flat tuple of instructions over named buffers. An instruction names its inputs and outputs and carries
its weights by checkpoint name; it holds no data and does no arithmetic. What each one means is defined by the
function of the same name in `executors/reference.py`.

Adding one: a dataclass here, its meaning in `executors/reference.py`, its kernel in `csrc/` (see
`docs/architecture.md`), a test in `tests/ops/`.

Shapes are written with T tokens, D hidden width, H query heads, G key/value heads, E head size, F intermediate width,
P partials and N vectors.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

Activation = Literal["identity", "gelu", "gelu_tanh", "relu", "silu", "tanh"]
"""`gelu` is the exact form with erf; `gelu_tanh` is its tanh approximation."""


class Rows(enum.Enum):
    """How many rows a buffer has. No buffer may grow faster than linearly in any of these."""

    TOKENS = "T"  # the tokens of one pack
    TILE = "tile"  # a fixed number of tokens, per thread
    PARTIALS = "P"  # one per (span, window)
    VECTORS = "N"  # one per output vector


@dataclass(frozen=True, slots=True)
class Buffer:
    """A named float32 matrix [rows, width] that instructions read and write."""

    name: str
    rows: Rows
    width: int

    def __str__(self) -> str:
        return f"{self.name}[{self.rows.value},{self.width}]"


@dataclass(frozen=True, slots=True)
class Weight:
    """A matrix or vector of the checkpoint, by name; several names are stacked along the first axis (fused q, k, v)."""

    names: tuple[str, ...]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of elements."""
        count = 1
        for extent in self.shape:
            count *= extent
        return count

    def __str__(self) -> str:
        return f"{'+'.join(self.names)}{list(self.shape)}"


def _reads() -> Buffer:
    value: Buffer = field(metadata={"access": "read"})
    return value


def _reads_optional() -> Buffer | None:
    value: Buffer | None = field(default=None, metadata={"access": "read"})
    return value


def _writes() -> Buffer:
    value: Buffer = field(metadata={"access": "write"})
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """Base of all instructions. `stage` groups them: 0 embeds, 1..L are the layers, the last one pools."""

    stage: int

    @property
    def op(self) -> str:
        """The instruction's name, as in the tables and in the executors."""
        return type(self).__name__.lower()

    def _buffers(self, access: str) -> Iterator[Buffer]:
        for spec in dataclasses.fields(self):
            value = getattr(self, spec.name)
            if spec.metadata.get("access") == access and value is not None:
                yield value

    @property
    def reads(self) -> tuple[Buffer, ...]:
        """The buffers whose contents this instruction uses."""
        return tuple(self._buffers("read"))

    @property
    def writes(self) -> tuple[Buffer, ...]:
        """The buffers that this instruction fills; a scratch buffer counts as written."""
        return tuple(self._buffers("write"))

    @property
    def weights(self) -> tuple[Weight, ...]:
        """The weights that this instruction uses, in field order."""
        values = (getattr(self, spec.name) for spec in dataclasses.fields(self))
        return tuple(value for value in values if isinstance(value, Weight))


# --- the body: rows are tokens -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Embed(Instruction):
    """out[t] = tokens[ids[t]] + positions[position[t] + position_offset] + types[0]."""

    out: Buffer = _writes()
    tokens: Weight  # [vocabulary, D]
    positions: Weight | None = None  # [maximum, D]
    position_offset: int = 0
    types: Weight | None = None  # [types, D]; every token of a single text has type 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Norm(Instruction):
    """LayerNorm over each row: out = (x - mean) / sqrt(var + eps) * weight + bias, with the biased variance."""

    x: Buffer = _reads()
    out: Buffer = _writes()
    weight: Weight | None = None  # [D]
    bias: Weight | None = None  # [D]
    eps: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear(Instruction):
    """out = activation(x W^T + bias) + residual."""

    x: Buffer = _reads()
    out: Buffer = _writes()
    weight: Weight  # [out width, in width]
    bias: Weight | None = None
    activation: Activation = "identity"
    residual: Buffer | None = _reads_optional()


@dataclass(frozen=True, slots=True, kw_only=True)
class Qkv(Instruction):
    """q, k, v = split(x W^T + bias); W stacks the rows of q (H*E), k (G*E) and v (G*E)."""

    x: Buffer = _reads()
    q: Buffer = _writes()  # [T, H*E]
    k: Buffer = _writes()  # [T, G*E]
    v: Buffer = _writes()  # [T, G*E]
    weight: Weight
    bias: Weight | None = None
    heads: int
    kv_heads: int
    head_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention(Instruction):
    """out = softmax(q k^T * scale) v within each segment, every token seeing its whole segment."""

    q: Buffer = _reads()
    k: Buffer = _reads()
    v: Buffer = _reads()
    out: Buffer = _writes()  # [T, H*E]
    heads: int
    kv_heads: int
    head_size: int
    scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Mlp(Instruction):
    """out = activation(x U^T + up_bias) W^T + down_bias + residual, tile by tile: F columns never have T rows."""

    x: Buffer = _reads()
    out: Buffer = _writes()
    hidden: Buffer = _writes()  # [tile, F], scratch
    up: Weight  # [F, D]
    up_bias: Weight | None = None
    down: Weight  # [D, F]
    down_bias: Weight | None = None
    activation: Activation
    residual: Buffer | None = _reads_optional()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool(Instruction):
    """Late pooling: out[p] = reduce over the rows of partial p of w * x, in float32.

    The rows and weights are `batch.partials[index]`. `kind` "sum" gives the weighted sum; "maximum" the elementwise
    maximum, without weights.
    """

    x: Buffer = _reads()
    out: Buffer = _writes()  # [P, D]
    kind: Literal["sum", "maximum"]
    index: int


# --- the tail: rows are vectors ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Combine(Instruction):
    """One row per vector from its partials of `batch.partials[index]`, taken in window order.

    "mean": sum / sum of weights; "mean_sqrt_len": sum / sqrt(sum of weights); "maximum": the maximum. A vector without
    partials is zero. The row goes to the columns of `out` from `column` on, so that several poolings are concatenated.
    """

    partials: Buffer = _reads()  # [P, D]
    out: Buffer = _writes()  # [N, D * number of poolings]
    kind: Literal["mean", "mean_sqrt_len", "maximum"]
    index: int
    column: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalize(Instruction):
    """out = x[:, :out width] / max(|x[:, :out width]|, 1e-12): the Matryoshka cut, then unit length if `unit`."""

    x: Buffer = _reads()
    out: Buffer = _writes()
    unit: bool
