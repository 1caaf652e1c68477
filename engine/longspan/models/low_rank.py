"""Low-rank pairs for the tasks of a checkpoint, added to the weights of a body."""

from __future__ import annotations

from dataclasses import replace

from ..checkpoint.adaptations import Adaptations
from ..program.instructions import Embed, Instruction, Linear, Mlp, Qkv
from ..program.operands import Layout, LowRank, Weight
from .family import Body, tile_buffer, tokens_buffer

FOLDER = "parametrizations.weight.0."
"""What stands before "lora_A" and "lora_B" in the place of a tensor's last word, "weight"."""


def with_adaptations(body: Body, adaptations: Adaptations) -> Body:
    """The body whose projections, MLPs and embeddings of tokens and types have a pair for each task.

    A weight [n, k] has `lora_A` [tasks, rank, k] and `lora_B` [tasks, n, rank]; of an embedding `lora_A` is left.
    """
    return replace(body, instructions=tuple(_adapted(step, adaptations) for step in body.instructions))


def _adapted(step: Instruction, adaptations: Adaptations) -> Instruction:
    ranks, tile_ranks = tokens_buffer("ranks", adaptations.rank), tile_buffer("tile_ranks", adaptations.rank)

    def pair(weight: Weight | None) -> LowRank | None:
        return None if weight is None else _pair(weight, adaptations, "lora_B", "lora_A")

    def table_pair(table: Weight | None) -> LowRank | None:
        return None if table is None else _pair(table, adaptations, "lora_A", "lora_B")

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


def _pair(weight: Weight, adaptations: Adaptations, left: str, right: str) -> LowRank:
    (name,) = weight.names
    (n, k), tasks, rank = weight.shape, len(adaptations.tasks), adaptations.rank
    at = name.removesuffix("weight") + FOLDER
    return LowRank(
        left=Weight((at + left,), (tasks * n, rank), Layout(stored=(tasks, n, rank))),
        right=Weight((at + right,), (tasks * rank, k), Layout(stored=(tasks, rank, k))),
        tasks=tasks,
        scale=adaptations.scale,
    )
