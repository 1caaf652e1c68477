"""The blocks that most transformers are made of, as instructions over one set of buffers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..program.instructions import Activation, Attention, Instruction, Linear, Mlp, Norm, NormKind, Qkv
from ..program.operands import Buffer, Weight
from .config import ModelConfig
from .family import rows_of, tile_buffer, tokens_buffer, weight


@dataclass(frozen=True, slots=True)
class Sizes:
    """D, H, G, E and F of the instructions' shapes."""

    width: int
    heads: int
    kv_heads: int
    head_size: int
    inner: int

    @classmethod
    def of(
        cls,
        config: ModelConfig,
        *,
        width: str = "hidden_size",
        heads: str = "num_attention_heads",
        inner: str = "intermediate_size",
        head_size: str = "head_dim",
    ) -> Sizes:
        """By the names that most configs use, or others; the head size divides the width unless a field gives it."""
        d, h = config.integer(width), config.integer(heads)
        e = config.optional_integer(head_size) or config.head_size(d, h, (width, heads))
        if e % 8 or e > 512:
            raise config.wrong(head_size, f"is {e}, expected a multiple of 8 up to 512")
        kv_heads = config.integer("num_key_value_heads", default=h)
        if h % kv_heads:
            raise config.wrong("num_key_value_heads", f"is {kv_heads}, which does not divide {h} heads")
        return cls(d, h, kv_heads, e, config.integer(inner))

    @property
    def queries(self) -> int:
        """The width of all query heads, H * E."""
        return self.heads * self.head_size

    @property
    def keys(self) -> int:
        """The width of all key heads, G * E."""
        return self.kv_heads * self.head_size


@dataclass(frozen=True, slots=True)
class Blocks:
    """Makes the instructions of blocks; `x` is the residual stream, `y` what a block makes of it.

    Attributes:
        sizes: of the layers.
        eps: of the norms.
        norm_kind: likewise.
        norm_offset: what is added to the norms' weights: 1 where checkpoints store the distance from 1.
    """

    sizes: Sizes
    eps: float
    norm_kind: NormKind = "rms"
    norm_offset: float = 0.0

    @property
    def x(self) -> Buffer:
        """The residual stream [T, D]."""
        return tokens_buffer("x", self.sizes.width)

    @property
    def y(self) -> Buffer:
        """What goes into a block and comes out of it [T, D]."""
        return tokens_buffer("y", self.sizes.width)

    @property
    def context(self) -> Buffer:
        """What attention gathers [T, H*E]; a name for each width, as layers may differ."""
        return tokens_buffer(f"context{self.sizes.queries}", self.sizes.queries)

    def norm(
        self, stage: int, name: str, x: Buffer, out: Buffer, *, bias: bool = False, residual: Buffer | None = None
    ) -> Norm:
        """out = norm(x) + residual."""
        width = x.width
        return Norm(
            stage=stage,
            x=x,
            out=out,
            kind=self.norm_kind,
            weight=weight(f"{name}.weight", width),
            weight_offset=self.norm_offset,
            bias=weight(f"{name}.bias", width) if bias else None,
            eps=self.eps,
            residual=residual,
        )

    def attention(
        self,
        stage: int,
        x: Buffer,
        projection: Weight,
        bias: Weight | None = None,
        *,
        scale: float | None = None,
        turned: dict[str, Any] | None = None,
        **scores: Any,
    ) -> tuple[Qkv, Attention]:
        """context = attention(x).

        Args:
            stage: of the instructions.
            x: what is projected.
            projection, bias: of queries, keys and values, stacked.
            scale: of the scores; by default E ** -0.5.
            turned: further fields of `Qkv`: norms and positions.
            scores: further fields of `Attention`: windows and biases.
        """
        sizes = self.sizes
        q = tokens_buffer(f"q{sizes.queries}", sizes.queries)
        k, v = (tokens_buffer(f"{name}{sizes.keys}", sizes.keys) for name in "kv")
        heads: dict[str, Any] = {"heads": sizes.heads, "kv_heads": sizes.kv_heads, "head_size": sizes.head_size}
        return (
            Qkv(stage=stage, x=x, q=q, k=k, v=v, weight=projection, bias=bias, **heads, **(turned or {})),
            Attention(
                stage=stage,
                q=q,
                k=k,
                v=v,
                out=self.context,
                scale=sizes.head_size**-0.5 if scale is None else scale,
                **heads,
                **scores,
            ),
        )

    def projections(self, at: str, names: Sequence[str], bias: bool = False) -> tuple[Weight, Weight | None]:
        """Separate projections of queries, keys and values, stacked: the weight, and the bias if there is one."""
        sizes = self.sizes
        rows = (sizes.queries, sizes.keys, sizes.keys)
        full = [f"{at}.{name}" for name in names]
        return (
            Weight(tuple(f"{name}.weight" for name in full), (sum(rows), sizes.width), rows=rows),
            Weight(tuple(f"{name}.bias" for name in full), (sum(rows),), rows=rows) if bias else None,
        )

    def packed_projections(self, name: str, bias: bool = False) -> tuple[Weight, Weight | None]:
        """A projection that is stored as one, of queries, keys and values in this order: the weight, and its bias."""
        rows = self.sizes.queries + 2 * self.sizes.keys
        return weight(f"{name}.weight", rows, self.sizes.width), weight(f"{name}.bias", rows) if bias else None

    def output(
        self, stage: int, name: str, out: Buffer, *, bias: bool = False, residual: Buffer | None = None
    ) -> Linear:
        """out = W context + residual."""
        return Linear(
            stage=stage,
            x=self.context,
            out=out,
            weight=weight(f"{name}.weight", self.sizes.width, self.sizes.queries),
            bias=weight(f"{name}.bias", self.sizes.width) if bias else None,
            residual=residual,
        )

    def mlp(
        self,
        stage: int,
        at: str,
        names: Sequence[str],
        x: Buffer,
        out: Buffer,
        activation: Activation,
        *,
        bias: bool = False,
        down_bias: bool | None = None,
        residual: Buffer | None = None,
    ) -> Mlp:
        """out = mlp(x) + residual; `names` are those of (up, down), or of (gate, up, down).

        `down_bias` says whether the last has a bias, where that is not as with the others.
        """
        inner, width = self.sizes.inner, self.sizes.width
        *gate, up, down = (f"{at}.{name}" for name in names)
        return Mlp(
            stage=stage,
            x=x,
            out=out,
            hidden=tile_buffer("hidden", inner),
            up=weight(f"{up}.weight", inner, width),
            up_bias=weight(f"{up}.bias", inner) if bias else None,
            gate=weight(f"{gate[0]}.weight", inner, width) if gate else None,
            gate_bias=weight(f"{gate[0]}.bias", inner) if gate and bias else None,
            down=weight(f"{down}.weight", width, inner),
            down_bias=weight(f"{down}.bias", width) if (bias if down_bias is None else down_bias) else None,
            activation=activation,
            residual=residual,
        )

    def packed_mlp(
        self,
        stage: int,
        at: str,
        names: tuple[str, str],
        x: Buffer,
        out: Buffer,
        activation: Activation,
        *,
        gate_first: bool,
        bias: bool = False,
        down_bias: bool | None = None,
        residual: Buffer | None = None,
    ) -> Mlp:
        """As `mlp`; gate and up are stored as one tensor, in this order or the other. `names`: of both, and of down."""
        inner, width = self.sizes.inner, self.sizes.width
        gate, up = (0, inner) if gate_first else (inner, 0)

        def rows(first: int) -> tuple[Weight, Weight | None]:
            both, last = f"{at}.{names[0]}", first + inner
            matrix = rows_of(f"{both}.weight", (2 * inner, width), first, last)
            return matrix, rows_of(f"{both}.bias", (2 * inner,), first, last) if bias else None

        plain = self.mlp(stage, at, names, x, out, activation, bias=bias, down_bias=down_bias, residual=residual)
        (up_weight, up_bias), (gate_weight, gate_bias) = rows(up), rows(gate)
        return replace(plain, up=up_weight, up_bias=up_bias, gate=gate_weight, gate_bias=gate_bias)


def joined(*layers: Sequence[Instruction]) -> tuple[Instruction, ...]:
    """The instructions of several layers, one after the other."""
    return tuple(step for layer in layers for step in layer)
