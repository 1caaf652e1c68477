"""Checks on texts."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from longspan.errors import InputError, InputTypeError
from longspan.text.inputs import check_texts


@pytest.mark.parametrize(
    "text", ["", " \n\t", "\0", "a\0b", "naïve", "😀", "\ufffd\ufeff\u200b", "x" * 10_000_000, "é" * 10_000_000]
)
def test_valid(text: str) -> None:
    assert check_texts([text]) == [text]


def test_collections() -> None:
    assert check_texts([]) == []
    assert check_texts(("a", "b")) == ["a", "b"]
    assert check_texts(text for text in "ab") == ["a", "b"]
    assert check_texts(np.array(["a", "ü"])) == ["a", "ü"]


@pytest.mark.parametrize("wrong", [7, None, b"bytes", 1.5, ["nested"]])
def test_wrong_type(wrong: Any) -> None:
    with pytest.raises(InputTypeError, match=re.escape(f"inputs[3] is {type(wrong).__name__}, expected str")):
        check_texts(["a", "b", "c", wrong])
    with pytest.raises(TypeError, match=re.escape("documents[0] is")):
        check_texts([wrong], "documents")


@pytest.mark.parametrize("wrong", [7, None, b"bytes", "one text"])
def test_no_collection(wrong: Any) -> None:
    with pytest.raises(InputTypeError, match=f"queries is {type(wrong).__name__}, expected a list of str"):
        check_texts(wrong, "queries")


@pytest.mark.parametrize("position", [0, 5, 65_535, 65_536, 200_000])
@pytest.mark.parametrize("code", [0xD800, 0xDBFF, 0xDC00, 0xDFFF])
def test_surrogates(position: int, code: int) -> None:
    text = "é" * position + chr(code) + "😀"
    with pytest.raises(
        InputError, match=re.escape(f"inputs[1] has a lone surrogate, U+{code:04X}, at position {position}")
    ):
        check_texts(["a", text])


def test_a_pair_of_surrogates_is_no_character() -> None:
    with pytest.raises(InputError, match="position 1"):
        check_texts(["x\ud83d\ude00"])
