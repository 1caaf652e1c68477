"""The texts that a caller hands in, and checks on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from ..errors import InputError, InputTypeError

Spans = Sequence[tuple[int, int]]

_BLOCK = 1 << 16  # code points encoded at a time, so that checking a huge text needs little memory


@dataclass(frozen=True, slots=True)
class Input:
    """One text of a call.

    Attributes:
        text: the text.
        spans: its chunks as pairs of code points, where the call gives them.
        pieces: the same chunks as texts, where the checkpoint's separator token stands between them.
    """

    text: str
    spans: Spans | None = None
    pieces: Sequence[str] | None = None


def check_texts(inputs: object, where: str = "inputs") -> list[str]:
    """Returns the texts as a list; empty ones, whitespace, NUL characters and any length are fine.

    Args:
        inputs: the texts.
        where: what the caller calls them, for messages.

    Raises:
        InputTypeError: `inputs` is not a collection of texts, or an element is not a `str`.
        InputError: a text holds a lone surrogate, which is no character and has no UTF-8 form.
    """
    if isinstance(inputs, str | bytes | Mapping | Set) or not isinstance(inputs, Iterable):
        raise InputTypeError(f"{where} is {type(inputs).__name__}, expected a list of str")
    try:
        texts = iter(inputs)
    except TypeError:  # an array without dimensions looks like a list
        raise InputTypeError(f"{where} is {type(inputs).__name__} without elements, expected a list of str") from None
    return [text if _is_plain(text) else check_text(text, f"{where}[{i}]") for i, text in enumerate(texts)]


def _is_plain(text: object) -> bool:
    return isinstance(text, str) and text.isascii()


def check_text(text: object, where: str) -> str:
    """Returns one text; raises as `check_texts`."""
    if not isinstance(text, str):
        raise InputTypeError(f"{where} is {type(text).__name__}, expected str")
    if not text.isascii():
        _check_surrogates(text, where)
    return text


def _check_surrogates(text: str, where: str) -> None:
    for start in range(0, len(text), _BLOCK):
        try:
            text[start : start + _BLOCK].encode()
        except UnicodeEncodeError as error:
            position = start + error.start
            raise InputError(
                f"{where} has a lone surrogate, U+{ord(text[position]):04X}, at position {position}"
            ) from None
