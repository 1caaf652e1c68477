"""The poolings that checkpoints are trained with, in terms of `pool` and `combine`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..models.family import PoolKind


@dataclass(frozen=True, slots=True)
class Mode:
    """How one pooling reduces rows, combines partials and weighs them.

    Attributes:
        pool: what `pool` does with the rows of a partial.
        combine: what `combine` does with the partials of a vector.
        rows: which rows of a document count: all that are owned, each window's first or last, or those of one token.
        by_position: whether the i-th counted token weighs i (from 1), or all weigh the same.
        last: how many rows are the last.
        token: the id whose rows count.
        own: whether all that precedes a document's own tokens is left out, and the first of these has the position 1.
    """

    pool: PoolKind
    combine: Literal["mean", "mean_sqrt_len", "maximum"]
    rows: Literal["all", "first", "last", "token"] = "all"
    by_position: bool = False
    last: int = 1
    token: int | None = None
    own: bool = False


MODES: Mapping[str, Mode] = {
    "cls": Mode("sum", "mean", rows="first"),
    "mean": Mode("sum", "mean"),
    "max": Mode("maximum", "maximum"),
    "mean_sqrt_len_tokens": Mode("sum", "mean_sqrt_len"),
    "weightedmean": Mode("sum", "mean", by_position=True),
    "lasttoken": Mode("sum", "mean", rows="last"),
    "token": Mode("sum", "mean", rows="token"),
}


def mode_of(name: str, id_of: Callable[[str], int | None] | None = None) -> Mode:
    """The pooling of a name such as "mean", "lasttoken:8" and "token:[MASK]".

    Args:
        name: as `checked_mode` takes it.
        id_of: from a token to its id; without it, the id stays open.
    """
    kind, _, argument = name.partition(":")
    mode = MODES[kind]
    if mode.rows == "token":
        return replace(mode, token=None if id_of is None else id_of(argument))
    return replace(mode, last=int(argument)) if argument else mode


def pool_kinds(pooling: Sequence[str]) -> tuple[PoolKind, ...]:
    """What the body's `pool` instructions do, one for each pooling."""
    return tuple(mode_of(name).pool for name in pooling)
