"""Checks on options that several places share."""

from __future__ import annotations

from collections.abc import Mapping

from .errors import InputTypeError
from .text.inputs import check_text


def is_count(value: object, least: int) -> bool:
    """Whether an option is an integer, numpy's included, of at least `least`; True and False are none."""
    return not isinstance(value, bool) and hasattr(value, "__index__") and int(value) >= least


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
