"""Longer texts than a checkpoint has positions for, without training (LongEmbed, arXiv 2404.12096).

Below, o is how many positions the model was made for, N how many it is to have, n the tokens of a text.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from ..batch import Float32
from ..checkpoint.transformer import UNLIMITED
from ..checks import is_count, one_of
from ..errors import InputError
from ..program.instructions import Attention, Embed, Instruction, Qkv
from ..program.operands import Weight
from ..program.positions import LengthScale, PositionMap, SelfExtend
from ..program.rope import Frequencies, Rope
from .family import Body

Method = Literal["ntk", "interpolate", "grouped", "recurrent", "self_extend"]

USUAL_FACTOR = 8
"""N / o where no N is given, and o over the near positions of `self_extend`: LongEmbed's."""


@dataclass(frozen=True, slots=True)
class Extension:
    """What a caller wants.

    Attributes:
        method: one of `Method`.
        length: N; None for eight times o.
    """

    method: Method
    length: int | None = None

    @classmethod
    def of(cls, method: object, length: Any) -> Extension | None:
        """The extension that two options of `Encoder` ask for; none where `method` is None.

        Raises:
            InputError: an option is not usable.
        """
        if method is None:
            return None
        known: tuple[Method, ...] = get_args(Method)
        if length is not None and not (is_count(length, 1) and length <= UNLIMITED):
            raise InputError(f"max_seq_length is {length!r}, expected an integer from 1 to {UNLIMITED}")
        return cls(one_of(method, known, "extend"), None if length is None else int(length))


def extend_body(body: Body, extension: Extension) -> Body:
    """The body with N positions, by a method of `LEARNED` or of `ROTARY`.

    In layers that see whole texts, queries are also multiplied by max(1, ln n / ln o), unless the checkpoint scales
    them by position itself. Layers that see a window stay as they are. Where all do, the widest windows are what the
    model was made for, whatever its positions: rotary methods take them for o, and open them.

    Raises:
        InputError: the method does not fit the model's positions, or N is no more than o.
    """
    embeds = [step for step in body.instructions if isinstance(step, Embed) and step.positions]
    layers = _widest(body)
    rotary = any(qkv.rope for qkv, _ in layers)
    fitting = () if bool(embeds) == rotary else tuple(LEARNED if embeds else ROTARY)
    if extension.method not in fitting:
        fits = f"; what fits is {', '.join(fitting)}" if fitting else ", nor does another method"
        raise InputError(f"extend={extension.method!r} does not fit the positions of {body.name}{fits}")
    if any(step.position_map for step in embeds) or any(qkv.rope and qkv.rope.long for qkv, _ in layers):
        raise InputError(f"extend does not fit {body.name}: its positions depend on a text's length already")
    window = _window(layers[0][1]) if rotary else None
    original = min(window or body.max_positions, body.max_positions)
    length = extension.length or min(original * USUAL_FACTOR, UNLIMITED)
    if length <= original:
        raise InputError(f"max_seq_length is {length}, but {body.name} has {original} positions without extend")
    changed: dict[Instruction, Instruction] = {}
    for qkv, attention in layers:
        pair = _sharpened(qkv, original), _opened(attention) if rotary else attention
        if rotary and qkv.rope is not None:
            pair = ROTARY[extension.method](*pair, qkv.rope, original, length)
        changed |= zip((qkv, attention), pair, strict=True)
    changed |= {step: LEARNED[extension.method](step, original, length) for step in embeds}
    return replace(
        body,
        instructions=tuple(changed.get(step, step) for step in body.instructions),
        max_positions=length,
        extension=f"{extension.method} from {original} to {length} positions",
    )


def _widest(body: Body) -> list[tuple[Qkv, Attention]]:
    """The layers that see farthest."""
    qkvs = {step.stage: step for step in body.instructions if isinstance(step, Qkv)}
    attentions = [step for step in body.instructions if isinstance(step, Attention)]
    windows = [_window(step) for step in attentions]
    widest = None if None in windows else max(filter(None, windows), default=None)
    return [(qkvs[step.stage], step) for step in attentions if _window(step) == widest]


def _window(attention: Attention) -> int | None:
    """How many tokens a query sees on its left, itself included; None for all."""
    return None if attention.left is None else attention.left + 1


def _opened(attention: Attention) -> Attention:
    """The layer without its window; what is causal remains so."""
    return replace(attention, left=None, right=None if attention.right else attention.right)


def _sharpened(qkv: Qkv, original: int) -> Qkv:
    return qkv if qkv.q_scale is not None else replace(qkv, q_scale=LengthScale(original))


# --- learned positions -----------------------------------------------------------------------------------------------


def _mapped(kind: Literal["recurrent", "grouped"]) -> Callable[[Embed, int, int], Embed]:
    return lambda embed, original, length: replace(embed, position_map=PositionMap(kind, original))


def _stretched(embed: Embed, original: int, length: int) -> Embed:
    """Row i * s is the old row i, rows between are interpolated, s = ceil(N / o). See `stretched_rows`."""
    assert embed.positions is not None
    factor = -(-length // original)
    first, (name,) = embed.position_offset, embed.positions.names
    table = Weight((f"{name}.stretched",), (first + original * factor, embed.positions.shape[1]))
    return replace(embed, positions=table, position_map=PositionMap("interpolated", original, factor))


def stretched_rows(table: Float32, *, first: int, factor: int) -> Float32:
    """A position table whose rows from `first` on are `factor` times as many.

    Every `factor`-th of these is an old one, to the bit. Between two they are interpolated; behind the last it is
    repeated.
    """
    rows = table[first:]
    following = np.concatenate([rows[1:], rows[-1:]])
    parts = (np.arange(factor, dtype=np.float32) / np.float32(factor))[:, None]
    between = rows[:, None] * (1 - parts) + following[:, None] * parts
    return np.concatenate([table[:first], between.reshape(-1, table.shape[1])])


LEARNED: Mapping[str, Callable[[Embed, int, int], Embed]] = {
    "grouped": _mapped("grouped"),
    "recurrent": _mapped("recurrent"),
    "interpolate": _stretched,
}
"""What makes of the table's `embed` one for N positions. A text of o tokens or less keeps its vectors."""


# --- rotary positions ------------------------------------------------------------------------------------------------


def _slower(qkv: Qkv, attention: Attention, rope: Rope, factors: Any) -> tuple[Qkv, Attention]:
    inverse = np.array(rope.usual.inverse, np.float64) * factors
    usual = Frequencies(tuple(inverse.astype(np.float32).tolist()), rope.usual.scale)
    return replace(qkv, rope=replace(rope, usual=usual)), attention


def _interpolated(qkv: Qkv, attention: Attention, rope: Rope, original: int, length: int) -> tuple[Qkv, Attention]:
    """Position p counts as p * o / N (arXiv 2306.15595)."""
    return _slower(qkv, attention, rope, original / length)


def _ntk(qkv: Qkv, attention: Attention, rope: Rope, original: int, length: int) -> tuple[Qkv, Attention]:
    """The base is multiplied by s ** (R / (R - 2)), s = N / o.

    So the slowest of R / 2 pairs is interpolated and the fastest is kept.
    """
    exponents = 2 * np.arange(rope.size // 2) / max(rope.size - 2, 1)
    return _slower(qkv, attention, rope, (length / original) ** -exponents)


def _self_extend(qkv: Qkv, attention: Attention, rope: Rope, original: int, length: int) -> tuple[Qkv, Attention]:
    """The smallest groups with which no relative position is beyond o; at N = 8 o, these are LongEmbed's 9."""
    near = max(original // USUAL_FACTOR, 1)
    group = next(size for size in itertools.count(2) if (length - 1) // size + near - near // size <= original)
    return replace(qkv, rope=None), replace(attention, rope=rope, self_extend=SelfExtend(original, group, near))


ROTARY: Mapping[str, Callable[[Qkv, Attention, Rope, int, int], tuple[Qkv, Attention]]] = {
    "ntk": _ntk,
    "interpolate": _interpolated,
    "self_extend": _self_extend,
}
"""What makes of a layer's `qkv` and `attention` those for N positions.

With "self_extend" a text of o tokens or less keeps its vectors; the others turn every text more slowly.
"""
