"""Low-rank pairs for the tasks of a checkpoint, added to the weights of a body."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..program.instructions import Embed, Instruction, Linear, Mlp, Qkv
from ..program.operands import Layout, LowRank, Weight
from .family import Body, tile_buffer, tokens_buffer

FOLDER = "parametrizations.weight.0."
"""What stands before "lora_A" and "lora_B" in the place of a tensor's last word, "weight"."""


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
    return replace(body, instructions=tuple(_adapted(step, pairs) for step in body.instructions))


def _adapted(step: Instruction, pairs: Pairs) -> Instruction:
    ranks, tile_ranks = tokens_buffer("ranks", pairs.rank), tile_buffer("tile_ranks", pairs.rank)

    def pair(weight: Weight | None) -> LowRank | None:
        return None if weight is None else _pair(weight, pairs, "lora_B", "lora_A")

    def table_pair(table: Weight | None) -> LowRank | None:
        return None if table is None else _pair(table, pairs, "lora_A", "lora_B")

    match step:
        case Linear() | Qkv():
            return replace(step, ranks=ranks, low_rank=pair(step.weight))
        case Mlp():
            up, gate, down = (pair(weight) for weight in (step.up, step.gate, step.down))
            return replace(step, ranks=tile_ranks, up_low_rank=up, gate_low_rank=gate, down_low_rank=down)
        case Embed():
            return replace(step, tokens_low_rank=table_pair(step.tokens), types_low_rank=table_pair(step.types))
        case _:
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
