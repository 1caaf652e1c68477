"""A checkpoint's `config.json` as families read it: `Fields` with the words that models have in common."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from reprlib import repr as shown
from typing import get_args

from ..checkpoint.config import MISSING, Fields
from ..errors import CheckpointError
from ..program.instructions import Activation

_ACTIVATIONS: Mapping[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_python": "gelu",
    "gelu_python_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}
assert set(_ACTIVATIONS.values()) <= set(get_args(Activation))

COUNTS = (
    "num_hidden_layers",
    "num_layers",
    "n_layers",
    "n_layer",
    "num_experts",
    "num_local_experts",
    "moe_num_experts",
)
MOST_OF_THEM = 10_000
"""Layers and experts, each of which is written out: far more than any model has."""


@dataclass(frozen=True, slots=True)
class ModelConfig(Fields):
    """A checkpoint's `config.json`.

    Attributes:
        tensors: the names of the checkpoint's tensors, for families whose checkpoints come in several forms.
    """

    tensors: Collection[str] = ()

    def integer(self, name: str, *, default: int = MISSING) -> int:
        """A positive integer; of layers and experts not more than any model has."""
        value = Fields.integer(self, name, default=default)
        if name in COUNTS and value > MOST_OF_THEM:
            raise self.wrong(name, f"is {value}, expected a positive integer up to {MOST_OF_THEM}")
        return value

    def numbers(self, name: str, count: int) -> tuple[float, ...]:
        """So many finite numbers."""
        values = self._get(name, list, f"{count} numbers", MISSING)
        if len(values) != count or not all(isinstance(v, (int, float)) and math.isfinite(v) for v in values):
            raise self.wrong(name, f"is not a list of {count} numbers")
        return tuple(map(float, values))

    def choices(self, name: str, count: int, allowed: Sequence[str]) -> tuple[str, ...]:
        """A string out of `allowed` for each of `count` layers."""
        values = self._get(name, list, f"a list of {count} strings", MISSING)
        if len(values) != count or not all(value in allowed for value in values):
            raise self.wrong(name, f"is not a list of {count} of {', '.join(map(repr, allowed))}")
        return tuple(values)

    def layer_numbers(self, name: str) -> frozenset[int]:
        """Numbers of layers, from 0 on; none where the field is absent or null."""
        values = self._get(name, list, "a list of numbers of layers", [])
        if not all(isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in values):
            raise self.wrong(name, f"is {shown(values)}, expected a list of numbers of layers")
        return frozenset(values)

    def activation(self, name: str, *, default: str = MISSING, before: str = "") -> Activation:
        """An activation by one of the names that checkpoints use, which may stand behind `before`."""
        value = self.text(name, default=default)
        if value.removeprefix(before) not in _ACTIVATIONS:
            raise self.wrong(name, f"is {shown(value)}; known are {', '.join(sorted(_ACTIVATIONS))}")
        return _ACTIVATIONS[value.removeprefix(before)]

    def head_size(self, width: int, heads: int, names: tuple[str, str] = ("hidden_size", "num_attention_heads")) -> int:
        """The head size that divides the hidden width evenly; `names` are those of the two fields."""
        if width % heads or (width // heads) % 8:
            raise CheckpointError(
                f"{self.path}: {names[0]} {width} over {names[1]} {heads} gives no head size that is a multiple of 8."
            )
        return width // heads

    def holds(self, part: str) -> bool:
        """Whether the checkpoint has a tensor with this in its name."""
        return any(part in name for name in self.tensors)
