"""Reads the JSON files of a checkpoint; every complaint names the file and the field."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, CheckpointNotFoundError


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

    Attributes:
        path: the file, for messages.
        values: its object, or one inside it.
        prefix: where the object lies within the file ("processing_kwargs.text."), for messages.
    """

    path: Path
    values: Mapping[str, object]
    prefix: str = ""

    @classmethod
    def read(cls, path: Path) -> Fields:
        """The fields of a file; raises as `read_json`."""
        return cls(path, read_json(path))

    @classmethod
    def read_optional(cls, path: Path) -> Fields:
        """The fields of a file, none if it does not exist."""
        return cls(path, read_json(path) if path.exists() else {})

    def wrong(self, name: str, reason: str) -> CheckpointError:
        """An error about one field, to be raised by the caller."""
        return CheckpointError(f"{self.path}: '{self.prefix}{name}' {reason}.")

    def boolean(self, name: str, default: bool) -> bool:
        """A true or false; `default` where the field is absent."""
        value = self.values.get(name, default)
        if not isinstance(value, bool):
            raise self.wrong(name, f"must be true or false, not {json_kind(value)}")
        return value

    def integer(self, name: str) -> int | None:
        """A positive integer; None where the field is absent or null."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.wrong(name, f"must be a positive integer, not {json_kind(value)}")
        if value < 1:
            raise self.wrong(name, f"must be a positive integer, not {value}")
        return value

    def required_integer(self, name: str) -> int:
        """A positive integer that must be there."""
        value = self.integer(name)
        if value is None:
            raise self.wrong(name, "is missing; a positive integer is needed")
        return value

    def number(self, name: str, default: float) -> float:
        """A finite number; `default` where the field is absent."""
        value = self.values.get(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self.wrong(name, f"must be a number, not {json_kind(value)}")
        if not math.isfinite(value):
            raise self.wrong(name, f"must be a finite number, not {value}")
        return float(value)

    def text(self, name: str) -> str | None:
        """A string; None where the field is absent or null."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, str):
            raise self.wrong(name, f"must be a string, not {json_kind(value)}")
        return value

    def table(self, name: str) -> Fields:
        """An object inside this one; an empty one where the field is absent or null."""
        value = self.values.get(name)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise self.wrong(name, f"must be an object, not {json_kind(value)}")
        return Fields(self.path, value, f"{self.prefix}{name}.")

    def only(self, name: str, allowed: str) -> None:
        """Checks that a string, where given, is the one value that is supported."""
        value = self.text(name)
        if value is not None and value != allowed:
            raise self.wrong(name, f"is '{value}'; only '{allowed}' is supported")
