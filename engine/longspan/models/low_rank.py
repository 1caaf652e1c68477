"""Low-rank pairs for the tasks of a checkpoint, added to the weights of a body."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..program.instructions import Embed, Instruction, Linear, Mlp, Qkv
from ..program.operands import Layout, LowRank, Weight
from .family import Body, tile_buffer, tokens_buffer

FOLDER = "parametrizations.weight.0."
"""What stands before "lora_A" and "lora_B" in the place of a tensor's last word, "weight"."""

Pair = Callable[[Weight], LowRank | None]
"""From a weight to its pair, if it has one."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """How many pairs there are, their rank, and the scale of what they add to the weights."""

    tasks: int
    rank: int
    scale: float


def with_pairs(body: Body, pairs: Pairs) -> Body:
    """The body whose projections, MLPs and embeddings of tokens and types have a pair for each task.

    A weight [n, k] has `lora_A` [tasks, rank, k] and `lora_B` [tasks, n, rank]; of an embedding `lora_A` is left.
    """

    def pair(weight: Weight) -> LowRank:
        return _pair(weight, pairs, "lora_B", "lora_A")

    def table_pair(table: Weight) -> LowRank:
        return _pair(table, pairs, "lora_A", "lora_B")

    return replace(body, instructions=tuple(with_low_rank(step, pair, table_pair) for step in body.instructions))


def with_low_rank(step: Instruction, pair: Pair, table_pair: Pair = lambda table: None) -> Instruction:
    """The step with the pairs of its weights, where it has any, and buffers as wide as their rank.

    Args:
        step: of a body.
        pair: gives the pair of a projection or of an MLP's matrix; of one MLP all have one rank.
        table_pair: the same for tables of embeddings.
    """
    match step:
        case Linear() | Qkv() if (own := pair(step.weight)) is not None:
            return replace(step, ranks=tokens_buffer(f"ranks{own.rank}", own.rank), low_rank=own)
        case Mlp():
            up, gate, down = (None if weight is None else pair(weight) for weight in (step.up, step.gate, step.down))
            given = next((own for own in (up, gate, down) if own is not None), None)
            if given is not None:
                ranks = tile_buffer(f"tile_ranks{given.rank}", given.rank)
                return replace(step, ranks=ranks, up_low_rank=up, gate_low_rank=gate, down_low_rank=down)
        case Embed():
            tokens, types = (None if table is None else table_pair(table) for table in (step.tokens, step.types))
            return replace(step, tokens_low_rank=tokens, types_low_rank=types)
    return step


def _pair(weight: Weight, pairs: Pairs, left: str, right: str) -> LowRank:
    (name,) = weight.names
    (n, k), tasks, rank = weight.shape, pairs.tasks, pairs.rank
    at = name.removesuffix("weight") + FOLDER
    return LowRank(
        left=Weight((at + left,), (tasks * n, rank), Layout(stored=(tasks, n, rank))),
        right=Weight((at + right,), (tasks * rank, k), Layout(stored=(tasks, rank, k))),
        tasks=tasks,
        scale=pairs.scale,
    )
