"""Jina v5: Qwen3 or EuroBERT, with a LoRA for each task in a folder of its own.

adapters/TASK/adapter_config.json and adapter_model.safetensors, for each of `task_names` in config.json.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..batch import Float32
from ..checkpoint.adapter import Update, read_updates
from ..checkpoint.computed import ComputedView
from ..checkpoint.tensor_view import TensorView
from ..checkpoint.tensors import Tensors
from ..errors import CheckpointError
from ..program.instructions import Instruction, Linear, Mlp, Qkv
from ..program.operands import LowRank, Weight
from .config import ModelConfig
from .eurobert import eurobert
from .family import Body
from .llama import qwen3
from .low_rank import with_low_rank

LEFT, RIGHT = ".tasks.lora_B", ".tasks.lora_A"
"""What stands behind a weight's key in the names of its pairs' tensors."""


def jina_v5(config: ModelConfig) -> Body:
    """`model_type: "jina_embeddings_v5"`, without the adapters: `is_decoder` tells the two models apart."""
    decoder = config.flag("is_decoder", default=True)
    if config.holds(".q_norm.") != decoder:
        norms = "has" if config.holds(".q_norm.") else "lacks"
        raise config.wrong("is_decoder", f"is {str(decoder).lower()}, but the checkpoint {norms} norms of queries")
    return replace(qwen3(config) if decoder else eurobert(config), name="jina_v5")


def with_task_adapters(body: Body, tensors: Tensors, folders: Sequence[Path]) -> tuple[Body, Tensors]:
    """The body whose products have a low-rank pair for each task, and the tensors with those of the pairs.

    Args:
        body: the model.
        tensors: the checkpoint's; where it was saved in panels, the pairs are among them already.
        folders: of the adapters, in the order of the tasks.

    Raises:
        CheckpointError: an adapter is damaged, is no plain LoRA, or changes what the body does not have.
    """
    known = {name: tensors[name] for name in tensors if name.endswith((LEFT, RIGHT))}
    pairs = known or _pairs(body, [_plain_updates(folder) for folder in folders], folders)
    return _with_pairs(body, pairs, len(folders)), Tensors(tensors.source, {**tensors, **pairs})


def _plain_updates(folder: Path) -> Mapping[str, Update]:
    updates = read_updates(folder)
    for module, update in updates.items():
        if set(update.parts) != {"lora_A", "lora_B"} or update.config.transposed:
            raise CheckpointError(
                f"{folder}: the update of '{module}' is more than a pair of matrices; that is supported for adapters "
                "that are merged, and not for those of tasks"
            )
    return updates


def _weights(step: Instruction) -> Iterator[Weight]:
    match step:
        case Linear() | Qkv():
            yield step.weight
        case Mlp():
            yield from (weight for weight in (step.up, step.gate, step.down) if weight is not None)


@dataclass(frozen=True, slots=True)
class _Pairs:
    """The updates of a weight [n, k].

    Attributes:
        weight: what is updated; of several stored tensors where projections are one product.
        updates: for each task, and each of these tensors, one or none.
        rank: the greatest of all; others are filled up with zeros.
    """

    weight: Weight
    updates: tuple[tuple[Update | None, ...], ...]
    rank: int

    @property
    def width(self) -> int:
        """The columns of a left factor: those of all tensors, side by side."""
        return self.rank * len(self.weight.names)

    def views(self) -> Iterator[tuple[str, TensorView]]:
        """Both factors by their names: left [tasks * n, width], right [tasks * width, k]."""
        given = [update for own in self.updates for update in own if update is not None]
        shapes = (
            (len(self.updates) * self.weight.shape[0], self.width),
            (len(self.updates) * self.width, self.weight.shape[1]),
        )
        for ending, role, shape, make in (
            (LEFT, "lora_B", shapes[0], self.left),
            (RIGHT, "lora_A", shapes[1], self.right),
        ):
            name = self.weight.key + ending
            yield name, ComputedView(name, shape, [update.parts[role] for update in given], make)

    def left(self, *factors: Float32) -> Float32:
        """Every tensor's rows have columns of their own, scaled."""
        whole, rest = np.zeros((len(self.updates), self.weight.shape[0], self.width), np.float32), iter(factors)
        rows = [shape[0] for shape in self.weight.stored.values()]
        for task, own in enumerate(self.updates):
            for index, update in enumerate(own):
                if update is not None:
                    first, column, factor = sum(rows[:index]), index * self.rank, next(rest)
                    block = whole[task, first : first + rows[index], column : column + factor.shape[1]]
                    block[:] = factor * np.float32(update.scale)
        return whole.reshape(-1, self.width)

    def right(self, *factors: Float32) -> Float32:
        """One tensor's rows below another's."""
        whole, rest = np.zeros((len(self.updates), self.width, self.weight.shape[1]), np.float32), iter(factors)
        for task, own in enumerate(self.updates):
            for index, update in enumerate(own):
                if update is not None:
                    factor = next(rest)
                    whole[task, index * self.rank : index * self.rank + len(factor)] = factor
        return whole.reshape(-1, self.weight.shape[1])


def _pairs(body: Body, tasks: Sequence[Mapping[str, Update]], folders: Sequence[Path]) -> dict[str, TensorView]:
    """The factors of all weights that some task updates."""
    weights = [weight for step in body.instructions for weight in _weights(step)]
    shapes = {name.removesuffix(".weight"): shape for weight in weights for name, shape in weight.stored.items()}
    found: list[dict[str, Update]] = []
    for updates, folder in zip(tasks, folders, strict=True):
        own = {_module(module, shapes, folder): update for module, update in updates.items()}
        for module, update in own.items():
            update.check(module, shapes[module], folder)
        found.append(own)
    rank = max((update.parts["lora_A"].shape[0] for own in found for update in own.values()), default=1)
    made: dict[str, TensorView] = {}
    for weight in weights:
        modules = [name.removesuffix(".weight") for name in weight.names]
        updates_of = tuple(tuple(own.get(module) for module in modules) for own in found)
        if any(update is not None for own in updates_of for update in own):
            made.update(_Pairs(weight, updates_of, rank).views())
    return made


def _module(name: str, known: Mapping[str, object], folder: Path) -> str:
    """The body's name of a module, which an adapter may name from further out."""
    found = next((module for module in known if name == module or name.endswith(f".{module}")), None)
    if found is None:
        raise CheckpointError(f"{folder}: the module '{name}' is not in the model.")
    return found


def _with_pairs(body: Body, pairs: Mapping[str, TensorView], tasks: int) -> Body:
    def pair(weight: Weight) -> LowRank | None:
        if weight.key + LEFT not in pairs:
            return None
        left, right = (Weight((weight.key + ending,), pairs[weight.key + ending].shape) for ending in (LEFT, RIGHT))
        return LowRank(left=left, right=right, tasks=tasks, scale=1.0)

    return replace(body, instructions=tuple(with_low_rank(step, pair) for step in body.instructions))
