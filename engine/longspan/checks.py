"""Checks on options that several places share."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import TypeVar

from .errors import InputError, InputTypeError
from .text.inputs import check_text

T = TypeVar("T", bound=str)


def one_of(value: object, known: Sequence[T], option: str) -> T:
    """The value, if it is a known one.

    Raises:
        InputError: it is not; the message names the option and the known values.
    """
    for candidate in known:
        if value == candidate:
            return candidate
    raise InputError(f"{option} is {value!r}, expected one of {', '.join(known)}")


def is_whole(value: object) -> bool:
    """Whether a value is an integer, numpy's included; True and False are none."""
    try:
        operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return False
    return not isinstance(value, bool)


def is_count(value: object, least: int) -> bool:
    """Whether an option is an integer of at least `least`."""
    return is_whole(value) and int(value) >= least  # type: ignore[call-overload]


def checked_prompts(prompts: Mapping[str, str] | None) -> dict[str, str]:
    """Prompts by name.

    Raises:
        InputTypeError: they are no mapping, or a name or a text is no string.
        InputError: a text holds a lone surrogate.
    """
    if prompts is None:
        return {}
    if not isinstance(prompts, Mapping):
        raise InputTypeError(f"prompts is {type(prompts).__name__}, expected a mapping from name to text")
    for name, text in prompts.items():
        check_text(name, f"the name {name!r} in prompts")
        check_text(text, f"prompts[{name!r}]")
    return dict(prompts)
