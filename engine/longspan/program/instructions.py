"""The instruction set: what a model is made of, as plain immutable data.

A program is a flat tuple of instructions over named buffers. An instruction names its inputs and outputs and carries
its weights by checkpoint name; it holds no data and does no arithmetic. What each one means is defined by the
function of the same name in `executors/meanings.py`.

Adding one: a dataclass here, its meaning in `executors/meanings.py`, its kernel in `csrc/` (see
`docs/architecture.md`), a test in `tests/ops/`.

Shapes are written with T tokens, D hidden width, H query heads, G key/value heads, E head size, F intermediate width,
P partials and N vectors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from ..weights import Format
from .operands import Buffer, LowRank, Weight
from .positions import LengthScale, PositionMap, SelfExtend
from .rope import PositionScale, Rope

Activation = Literal["identity", "gelu", "gelu_tanh", "relu", "silu", "tanh"]
"""`gelu` is the exact form with erf; `gelu_tanh` is its tanh approximation."""


def _reads(*, narrow: bool = False) -> Buffer:
    value: Buffer = field(metadata={"access": "read", "narrow": narrow})
    return value


def _reads_optional() -> Buffer | None:
    value: Buffer | None = field(default=None, metadata={"access": "read"})
    return value


def _writes(*, narrow: bool = False) -> Buffer:
    value: Buffer = field(metadata={"access": "write", "narrow": narrow})
    return value


def _writes_optional() -> Buffer | None:
    value: Buffer | None = field(default=None, metadata={"access": "write"})
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """Base of all instructions. `stage` groups them: 0 embeds, 1..L are the layers, the last one pools."""

    stage: int

    @property
    def op(self) -> str:
        """The instruction's name, as in the tables and in the executors."""
        return type(self).__name__.lower()

    @property
    def wide(self) -> tuple[Buffer, ...]:
        """The buffers that have to be float32: all but rows of products, heads, and what only these read."""
        values = ((spec, getattr(self, spec.name)) for spec in dataclasses.fields(self) if "access" in spec.metadata)
        return tuple(value for spec, value in values if value is not None and not spec.metadata.get("narrow"))

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
        found: list[Weight] = []
        for spec in dataclasses.fields(self):
            value = getattr(self, spec.name)
            found += [value.left, value.right] if isinstance(value, LowRank) else [value]
        return tuple(value for value in found if isinstance(value, Weight))


# --- the body: rows are tokens -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Embed(Instruction):
    """out[t] = tokens[ids[t]] * scale + positions[position[t] + position_offset] + types[0]; absent tables are zero.

    Where there is a `position_map`, its rows take the place of position[t].
    Tables may gain a low-rank pair by the batch's task.
    """

    out: Buffer = _writes()
    tokens: Weight | None = None  # [vocabulary, D]
    tokens_low_rank: LowRank | None = None
    scale: float = 1.0
    positions: Weight | None = None  # [maximum, D]
    position_offset: int = 0
    position_map: PositionMap | None = None
    types: Weight | None = None  # [types, D]; every token of a single text has type 0
    types_low_rank: LowRank | None = None


NormKind = Literal["layer", "rms"]
"""`layer`: (x - mean) / sqrt(var + eps), with the biased variance; `rms`: x / sqrt(mean of x^2 + eps)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Norm(Instruction):
    """out = (normalised x * (weight + weight_offset) + bias + residual) * scale, row by row."""

    x: Buffer = _reads()
    out: Buffer = _writes(narrow=True)
    kind: NormKind = "layer"
    weight: Weight | None = None  # [D]
    weight_offset: float = 0.0  # 1 for checkpoints that store the weight's distance from 1
    bias: Weight | None = None  # [D]
    eps: float
    residual: Buffer | None = _reads_optional()
    scale: Weight | None = None  # [1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear(Instruction):
    """out = activation(x W^T + bias) * factor + residual; W may gain a low-rank pair by the batch's task."""

    x: Buffer = _reads(narrow=True)
    out: Buffer = _writes()
    ranks: Buffer | None = _writes_optional()  # [T, rank], scratch of the low-rank pair
    weight: Weight  # [out width, in width]
    format: Format = "float32"
    low_rank: LowRank | None = None
    bias: Weight | None = None
    activation: Activation = "identity"
    factor: Buffer | None = _reads_optional()
    residual: Buffer | None = _reads_optional()


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadNorm:
    """What normalises queries and keys after their projection.

    Attributes:
        kind: as in `Norm`.
        eps: likewise.
        weight_offset: likewise.
        whole: over all heads of a token together, instead of each head by itself.
        values: whether values are normalised too, each head by itself and without weights.
    """

    kind: NormKind
    eps: float
    weight_offset: float = 0.0
    whole: bool = False
    values: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Qkv(Instruction):
    """q, k, v = split(x W^T + bias), normalised and turned; W stacks the rows of q (H*E), k (G*E) and v (G*E).

    The order is projection, `norm`, `rope`, `q_scale`. W may gain a low-rank pair by the batch's task.
    """

    x: Buffer = _reads(narrow=True)
    q: Buffer = _writes(narrow=True)  # [T, H*E]
    k: Buffer = _writes(narrow=True)  # [T, G*E]
    v: Buffer = _writes(narrow=True)  # [T, G*E]
    ranks: Buffer | None = _writes_optional()  # [T, rank], scratch of the low-rank pair
    weight: Weight
    format: Format = "float32"
    low_rank: LowRank | None = None
    bias: Weight | None = None
    heads: int
    kv_heads: int
    head_size: int
    norm: HeadNorm | None = None
    q_norm: Weight | None = None  # [E], or [H*E] where the norm is over all heads
    k_norm: Weight | None = None  # [E], or [G*E]
    q_norm_bias: Weight | None = None
    k_norm_bias: Weight | None = None
    rope: Rope | None = None
    q_scale: PositionScale | LengthScale | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RelativeBias:
    """T5's bias: distances fall into buckets, exact near zero and logarithmic up to `max_distance`."""

    max_distance: int
    bidirectional: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention(Instruction):
    """out = softmax(soft-capped(q k^T * scale) + bias) v within each segment.

    Query head h uses the keys and values of head h // (H / G). A query at position i sees the keys from i - left to
    i + right. `sinks` are logits of keys without values. With a `rope`, queries and keys come unturned and are turned
    here, by relative positions as `self_extend` says.
    """

    q: Buffer = _reads(narrow=True)
    k: Buffer = _reads(narrow=True)
    v: Buffer = _reads(narrow=True)
    out: Buffer = _writes(narrow=True)  # [T, H*E]
    heads: int
    kv_heads: int
    head_size: int
    scale: float
    left: int | None = None  # how many keys before itself a query sees; None: all of its segment
    right: int | None = None  # how many after itself; 0 is causal
    soft_cap: float | None = None  # c tanh(score / c)
    slopes: tuple[float, ...] = ()  # [H] ALiBi: the bias is -slope * |i - j|
    relative: RelativeBias | None = None
    relative_bias: Weight | None = None  # [buckets, H]
    sinks: Weight | None = None  # [H]
    rope: Rope | None = None  # whose frequencies do not depend on the length
    self_extend: SelfExtend | None = None  # given together with `rope`
    int8: bool = False  # queries, keys, values and their weights are rounded to bytes; not together with `rope`

    @property
    def wide(self) -> tuple[Buffer, ...]:
        """Queries and keys that are turned here are float32."""
        return () if self.self_extend is None else (self.q, self.k, self.v)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mlp(Instruction):
    """out = h W^T + down_bias + residual, tile by tile: the F columns of h never have T rows.

    h = activation(x U^T + up_bias), or with a gate (GLU) activation(x G^T + gate_bias) * (x U^T + up_bias).
    Each matrix may gain a low-rank pair by the batch's task, all of one rank.
    """

    x: Buffer = _reads(narrow=True)
    out: Buffer = _writes()
    hidden: Buffer = _writes(narrow=True)  # [tile, F], scratch
    ranks: Buffer | None = _writes_optional()  # [tile, rank], scratch of the low-rank pairs
    up: Weight  # [F, D]
    up_low_rank: LowRank | None = None
    up_bias: Weight | None = None
    gate: Weight | None = None  # [F, D]
    gate_low_rank: LowRank | None = None
    gate_bias: Weight | None = None
    down: Weight  # [D, F]
    down_low_rank: LowRank | None = None
    down_bias: Weight | None = None
    format: Format = "float32"  # of all three
    activation: Activation
    residual: Buffer | None = _reads_optional()


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """How a token chooses its experts.

    Attributes:
        experts: how many there are, X.
        chosen: how many a token takes, those with the greatest logits.
        normalised: whether the weights of the chosen ones sum to 1; else they are softmax probabilities over all.
    """

    experts: int
    chosen: int
    normalised: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Moe(Instruction):
    """out = sum over a token's experts e, ascending, of p_e * mlp_e(x), + out_bias + residual; mlp as in `Mlp`.

    p are the router's softmax probabilities of x R^T.
    """

    x: Buffer = _reads()
    out: Buffer = _writes()
    logits: Buffer = _writes()  # [tile, X], scratch
    gathered: Buffer = _writes()  # [tile, D], scratch
    hidden: Buffer = _writes(narrow=True)  # [tile, F], scratch
    sums: Buffer = _writes()  # [tile, D], scratch
    router: Weight  # [X, D]
    routing: Routing
    up: Weight  # [X * F, D]
    gate: Weight | None = None  # [X * F, D]
    down: Weight  # [X * D, F]
    format: Format = "float32"  # of the experts
    out_bias: Weight | None = None  # [D]
    activation: Activation
    residual: Buffer | None = _reads_optional()


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentAttention(Instruction):
    """out = attention of x over constant latents, W_o, + residual, tile by tile: nothing but x and out has T rows.

    Queries are x W_q^T; keys and values are projections of the layer-normalised latents, each in H heads of E columns.
    As all but x is constant, an executor may multiply the matrices with each other beforehand.
    """

    x: Buffer = _reads()
    out: Buffer = _writes()
    scores: Buffer = _writes()  # [tile, H * L], scratch
    query: Weight  # [H*E, D]
    latents: Weight  # [L, C]
    norm: Weight | None = None  # [C]
    norm_bias: Weight | None = None  # [C]
    eps: float
    keys: Weight  # [H*E, C]
    values: Weight  # [H*E, C]
    output: Weight  # [D, H*E]
    heads: int
    scale: float
    residual: Buffer | None = _reads_optional()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tap(Instruction):
    """out = weight[index] / sum(weight) * x, added to what `into` holds, if given: a weighted mean of layers."""

    x: Buffer = _reads()
    into: Buffer | None = _reads_optional()  # the same buffer as `out`; none for the first layer
    out: Buffer = _writes()
    weight: Weight  # [layers]
    index: int


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


@dataclass(frozen=True, slots=True, kw_only=True)
class TanhQuantize(Instruction):
    """out = round(127 tanh(x)), ties to even: the integers from -127 to 127, as floats."""

    x: Buffer = _reads()
    out: Buffer = _writes()
