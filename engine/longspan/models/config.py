"""A checkpoint's `config.json`, read by families; every complaint names the file and the field."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

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

_MISSING: Any = object()


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A checkpoint's `config.json` with typed access; every complaint names the file and the field."""

    path: Path
    fields: Mapping[str, Any]
    tensors: Collection[str] = ()
    """The names of the checkpoint's tensors, for families whose checkpoints come in several forms."""
    prefix: str = ""

    def _error(self, message: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: {message}")

    def wrong(self, name: str, message: str) -> CheckpointError:
        """An error about one field, to be raised by the caller."""
        return self._error(f"field {self.prefix + name!r} {message}")

    def _get(self, name: str, kind: type | tuple[type, ...], described: str, default: Any) -> Any:
        value = self.fields.get(name)
        if value is None:
            if default is _MISSING:
                raise self.wrong(name, "is missing")
            return default
        if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
            raise self.wrong(name, f"is {value!r}, expected {described}")
        return value

    def integer(self, name: str, *, default: int = _MISSING) -> int:
        """A positive integer."""
        value: int = self._get(name, int, "a positive integer", default)
        if value < 1:
            raise self.wrong(name, f"is {value}, expected a positive integer")
        return value

    def natural(self, name: str, *, default: int = _MISSING) -> int:
        """An integer of at least 0."""
        value: int = self._get(name, int, "an integer of at least 0", default)
        if value < 0:
            raise self.wrong(name, f"is {value}, expected an integer of at least 0")
        return value

    def number(self, name: str, *, default: float = _MISSING) -> float:
        """A finite, non-negative number."""
        try:
            value = float(self._get(name, (int, float), "a number", default))
        except OverflowError:
            value = float("inf")
        if not 0 <= value < float("inf"):
            raise self.wrong(name, f"is {value}, expected a finite number of at least 0")
        return value

    def text(self, name: str, *, default: str = _MISSING) -> str:
        """A string."""
        value: str = self._get(name, str, "a string", default)
        return value

    def flag(self, name: str, *, default: bool = _MISSING) -> bool:
        """True or false."""
        value: bool = self._get(name, bool, "true or false", default)
        return value

    def optional_integer(self, name: str) -> int | None:
        """A positive integer, or None where the field is absent or null."""
        return None if self.fields.get(name) is None else self.integer(name)

    def optional_number(self, name: str) -> float | None:
        """A finite, non-negative number, or None where the field is absent or null."""
        return None if self.fields.get(name) is None else self.number(name)

    def numbers(self, name: str, count: int) -> tuple[float, ...]:
        """So many finite numbers."""
        values = self._get(name, list, f"{count} numbers", _MISSING)
        if len(values) != count or not all(isinstance(v, (int, float)) and math.isfinite(v) for v in values):
            raise self.wrong(name, f"is not a list of {count} numbers")
        return tuple(map(float, values))

    def choices(self, name: str, count: int, allowed: Sequence[str]) -> tuple[str, ...]:
        """A string out of `allowed` for each of `count` layers."""
        values = self._get(name, list, f"a list of {count} strings", _MISSING)
        if len(values) != count or not set(values) <= set(allowed):
            raise self.wrong(name, f"is not a list of {count} of {', '.join(map(repr, allowed))}")
        return tuple(values)

    def layer_numbers(self, name: str) -> frozenset[int]:
        """Numbers of layers, from 0 on; none where the field is absent or null."""
        values = self._get(name, list, "a list of numbers of layers", [])
        if not all(isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in values):
            raise self.wrong(name, f"is {values!r}, expected a list of numbers of layers")
        return frozenset(values)

    def completed(self, defaults: Mapping[str, Any]) -> ModelConfig:
        """This config with values for fields that it lacks; what is null stays so."""
        return replace(self, fields={**defaults, **self.fields})

    def table(self, name: str) -> ModelConfig:
        """An object inside this one; an empty one where the field is absent or null."""
        value = self._get(name, dict, "an object", {})
        return ModelConfig(self.path, value, self.tensors, f"{self.prefix}{name}.")

    def activation(self, name: str, *, default: str = _MISSING, before: str = "") -> Activation:
        """An activation by one of the names that checkpoints use, which may stand behind `before`."""
        value = self.text(name, default=default)
        if value.removeprefix(before) not in _ACTIVATIONS:
            raise self.wrong(name, f"is {value!r}; known are {', '.join(sorted(_ACTIVATIONS))}")
        return _ACTIVATIONS[value.removeprefix(before)]

    def head_size(self, width: int, heads: int, names: tuple[str, str] = ("hidden_size", "num_attention_heads")) -> int:
        """The head size that divides the hidden width evenly; `names` are those of the two fields."""
        if width % heads or (width // heads) % 8:
            raise self._error(f"{names[0]} {width} over {names[1]} {heads} gives no head size that is a multiple of 8")
        return width // heads

    def spelling(self, *names: str) -> str:
        """Which of a field's names this config uses; the first where it has none of them.

        Raises:
            CheckpointError: it has two of them, with different values.
        """
        used = [name for name in names if self.fields.get(name) is not None] or [names[0]]
        for other in used[1:]:
            if self.fields[other] != self.fields[used[0]]:
                raise self.wrong(other, f"is {self.fields[other]!r}, but {used[0]!r} is {self.fields[used[0]]!r}")
        return used[0]

    def holds(self, part: str) -> bool:
        """Whether the checkpoint has a tensor with this in its name."""
        return any(part in name for name in self.tensors)

    def require(self, name: str, *allowed: Any) -> None:
        """Raise unless the field is absent or has one of the allowed values."""
        value = self.fields.get(name)
        if value is not None and value not in allowed:
            choices = " or ".join(map(repr, allowed))
            raise self.wrong(name, f"is {value!r}; only {choices} is supported for this model type")
