"""Reads the JSON files of a checkpoint; every complaint names the file and the field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from reprlib import repr as shown
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, CheckpointNotFoundError

if TYPE_CHECKING:
    from typing_extensions import Self

MISSING: Any = object()
"""The default of a field that has none."""
MOST = 2**31 - 1
"""Of sizes and counts, which kernels hold in 32 bits."""


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        CheckpointNotFoundError: there is no such file.
        CheckpointError: it cannot be read, is not JSON, or is not an object.
    """
    value = _parse(path)
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object, not {json_kind(value)}.")
    return value


def read_json_list(path: Path) -> list[Any]:
    """The list in a JSON file; raises as `read_json`."""
    value = _parse(path)
    if not isinstance(value, list):
        raise CheckpointError(f"{path} must hold a JSON list, not {json_kind(value)}.")
    return value


def json_kind(value: object) -> str:
    """What JSON calls a value, for messages: "a string", "null"."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    names = {str: "a string", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)


def _parse(path: Path) -> object:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointNotFoundError(f"{path} does not exist.") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        value: object = json.loads(raw.decode("utf-8"))
    # ValueError is bad UTF-8, bad JSON and an integer of too many digits; RecursionError is absurd nesting.
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}.") from error
    return value


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of one JSON object, read with their types checked.

    What is null counts as absent. Only a flag that is true by default has to be said: to the code that checkpoints were
    made for, null is no.

    Attributes:
        path: the file, for messages.
        values: its object, or one inside it.
        prefix: where the object lies within the file ("processing_kwargs.text."), for messages.
    """

    path: Path
    values: Mapping[str, Any]
    prefix: str = ""

    @classmethod
    def read(cls, path: Path) -> Self:
        """The fields of a file; raises as `read_json`."""
        return cls(path, read_json(path))

    @classmethod
    def read_optional(cls, path: Path) -> Self:
        """The fields of a file, none if it does not exist."""
        return cls(path, read_json(path) if path.exists() else {})

    def wrong(self, name: str, reason: str) -> CheckpointError:
        """An error about one field, to be raised by the caller."""
        return CheckpointError(f"{self.path}: field '{self.prefix}{name}' {reason}.")

    def _get(self, name: str, kind: type | tuple[type, ...], described: str, default: Any) -> Any:
        value = self.values.get(name)
        if value is None:
            if default is MISSING:
                raise self.wrong(name, f"is missing, expected {described}")
            return default
        if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
            raise self.wrong(name, f"is {shown(value)}, expected {described}")
        return value

    def integer(self, name: str, *, default: int = MISSING) -> int:
        """A positive integer."""
        value: int = self._get(name, int, "a positive integer", default)
        if not 1 <= value <= MOST:
            raise self.wrong(name, f"is {value}, expected a positive integer{_up_to(value)}")
        return value

    def natural(self, name: str, *, default: int = MISSING) -> int:
        """An integer of at least 0."""
        value: int = self._get(name, int, "an integer of at least 0", default)
        if not 0 <= value <= MOST:
            raise self.wrong(name, f"is {value}, expected an integer of at least 0{_up_to(value)}")
        return value

    def number(self, name: str, *, default: float = MISSING) -> float:
        """A finite, non-negative number."""
        try:
            value = float(self._get(name, (int, float), "a number", default))
        except OverflowError:
            value = float("inf")
        if not 0 <= value < float("inf"):
            raise self.wrong(name, f"is {value}, expected a finite number of at least 0")
        return value

    def positive(self, name: str, *, default: float = MISSING) -> float:
        """A finite number above 0."""
        value = self.number(name, default=default)
        if value == 0:
            raise self.wrong(name, "is 0, expected a number above it")
        return value

    def text(self, name: str, *, default: str = MISSING) -> str:
        """A string."""
        value: str = self._get(name, str, "a string", default)
        return value

    def flag(self, name: str, *, default: bool = MISSING) -> bool:
        """True or false."""
        if default is True and name in self.values and self.values[name] is None:
            raise self.wrong(name, "is null, expected true or false")
        value: bool = self._get(name, bool, "true or false", default)
        return value

    def optional_integer(self, name: str) -> int | None:
        """A positive integer, or None where the field is absent or null."""
        return None if self.values.get(name) is None else self.integer(name)

    def optional_number(self, name: str) -> float | None:
        """A finite, non-negative number, or None where the field is absent or null."""
        return None if self.values.get(name) is None else self.number(name)

    def optional_text(self, name: str) -> str | None:
        """A string, or None where the field is absent or null."""
        return None if self.values.get(name) is None else self.text(name)

    def names(self, name: str) -> tuple[str, ...]:
        """A list of strings; none where the field is absent or null."""
        values = self._get(name, list, "a list of strings", [])
        if not all(isinstance(value, str) for value in values):
            raise self.wrong(name, f"is {shown(values)}, expected a list of strings")
        return tuple(values)

    def table(self, name: str) -> Self:
        """An object inside this one; an empty one where the field is absent or null."""
        return replace(self, values=self._get(name, dict, "an object", {}), prefix=f"{self.prefix}{name}.")

    def require(self, name: str, *allowed: Any) -> None:
        """Raise unless the field is absent, null, or has one of the allowed values."""
        value = self.values.get(name)
        if value is not None and value not in allowed:
            raise self.wrong(name, f"is {shown(value)}; only {' or '.join(map(repr, allowed))} is supported")

    def completed(self, defaults: Mapping[str, Any]) -> Self:
        """This object with values for fields that it lacks; what is null stays so."""
        return replace(self, values={**defaults, **self.values})

    def changed(self, **values: Any) -> Self:
        """This object with other values for some fields."""
        return replace(self, values={**self.values, **values})

    def spelling(self, *names: str) -> str:
        """Which of a field's names this object uses; the first where it has none of them.

        Raises:
            CheckpointError: it has two of them, with different values.
        """
        used = [name for name in names if self.values.get(name) is not None] or [names[0]]
        for other in used[1:]:
            if self.values[other] != self.values[used[0]]:
                raise self.wrong(
                    other, f"is {shown(self.values[other])}, but '{used[0]}' is {shown(self.values[used[0]])}"
                )
        return used[0]


def _up_to(value: int) -> str:
    return f" up to {MOST}" if value > MOST else ""
