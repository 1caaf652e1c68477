"""What every family is written with: a config that complains by name, and short words for buffers and weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ..errors import CheckpointError
from ..program.instructions import Activation, Buffer, Instruction, Pool, Rows, Weight
from ..program.program import Program

_ACTIVATIONS: Mapping[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}
assert set(_ACTIVATIONS.values()) <= set(get_args(Activation))

_MISSING: Any = object()


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A checkpoint's `config.json` with typed access; every complaint names the file and the field."""

    path: Path
    fields: Mapping[str, Any]

    def _error(self, message: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: {message}")

    def _get(self, name: str, kind: type | tuple[type, ...], described: str, default: Any) -> Any:
        value = self.fields.get(name)
        if value is None:
            if default is _MISSING:
                raise self._error(f"field {name!r} is missing")
            return default
        if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
            raise self._error(f"field {name!r} is {value!r}, expected {described}")
        return value

    def integer(self, name: str, *, default: int = _MISSING) -> int:
        """A positive integer."""
        value: int = self._get(name, int, "a positive integer", default)
        if value < 1:
            raise self._error(f"field {name!r} is {value}, expected a positive integer")
        return value

    def number(self, name: str, *, default: float = _MISSING) -> float:
        """A finite, non-negative number."""
        try:
            value = float(self._get(name, (int, float), "a number", default))
        except OverflowError:
            value = float("inf")
        if not 0 <= value < float("inf"):
            raise self._error(f"field {name!r} is {value}, expected a finite number of at least 0")
        return value

    def text(self, name: str, *, default: str = _MISSING) -> str:
        """A string."""
        value: str = self._get(name, str, "a string", default)
        return value

    def activation(self, name: str, *, default: str = _MISSING) -> Activation:
        """An activation by one of the names that checkpoints use."""
        value = self.text(name, default=default)
        if value not in _ACTIVATIONS:
            raise self._error(f"field {name!r} is {value!r}; known are {', '.join(sorted(_ACTIVATIONS))}")
        return _ACTIVATIONS[value]

    def head_size(self, width: int, heads: int) -> int:
        """The head size that divides the hidden width evenly."""
        if width % heads or (width // heads) % 8:
            raise self._error(
                f"hidden_size {width} over num_attention_heads {heads} gives no head size that is a multiple of 8"
            )
        return width // heads

    def require(self, name: str, *allowed: Any) -> None:
        """Raise unless the field is absent or has one of the allowed values."""
        value = self.fields.get(name)
        if value is not None and value not in allowed:
            choices = " or ".join(map(repr, allowed))
            raise self._error(f"field {name!r} is {value!r}; only {choices} is supported for this model type")


@dataclass(frozen=True, slots=True)
class Body:
    """A model up to its token vectors: instructions in order, and the buffer [T, D] that ends up with the vectors."""

    name: str
    instructions: tuple[Instruction, ...]
    output: Buffer
    max_positions: int
    """How many positions the checkpoint was made for, special tokens included."""
    prefixes: tuple[str, ...] = ("",)
    """What checkpoints of this family put before all tensor names."""
    renamed: tuple[tuple[str, str], ...] = ()
    """Endings of tensor names, and what older checkpoints have instead."""

    def pooled(self, kinds: Sequence[PoolKind]) -> Program:
        """The body as a program that ends in one `pool` per kind; their outputs are the program's, in order."""
        stage = self.instructions[-1].stage + 1
        pools = tuple(
            Pool(stage=stage, x=self.output, out=partials_buffer(index, self.output.width), kind=kind, index=index)
            for index, kind in enumerate(kinds)
        )
        return Program(self.name, (*self.instructions, *pools), outputs=tuple(pool.out for pool in pools))


PoolKind = Literal["sum", "maximum"]


def partials_buffer(index: int, width: int) -> Buffer:
    """The buffer [P, D] between a body's `pool` number `index` and the tail's `combine` of the same number."""
    return Buffer(f"partials{index}", Rows.PARTIALS, width)


def tokens_buffer(name: str, width: int) -> Buffer:
    """A buffer [T, width]."""
    return Buffer(name, Rows.TOKENS, width)


def tile_buffer(name: str, width: int) -> Buffer:
    """A buffer [tile, width]: scratch of one thread."""
    return Buffer(name, Rows.TILE, width)


def weight(name: str, *shape: int) -> Weight:
    """A weight by its name in the checkpoint, without the prefix that some checkpoints put before all names."""
    return Weight((name,), shape)


def stacked(names: Sequence[str], shape: tuple[int, ...]) -> Weight:
    """Several weights of one shape, stacked along the first axis."""
    return Weight(tuple(names), (shape[0] * len(names), *shape[1:]))


Family = Callable[[ModelConfig], Body]
