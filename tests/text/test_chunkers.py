"""Splitters of every kind, and what is said of those that return something else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from longspan.errors import InputError, InputTypeError
from longspan.text.chunkers import by_spans, by_splitter, by_tokens, join_pieces
from longspan.text.chunks import Kept
from longspan.text.inputs import Input

TEXT = "One two. Three four.\nFive six."


def tokens(text: str = TEXT, limit: int | None = None) -> Kept:
    starts, ends = np.array([match.span() for match in re.finditer(r"\w+|[^\w\s]", text)], np.int32).T
    return Kept(text, starts[:limit], ends[:limit], cut=limit is not None)


def spans_of(splitter: Any, text: str = TEXT) -> list[tuple[int, int]]:
    """The spans of the one level that a splitter makes."""
    (level,) = by_splitter(splitter, "documents")(3, Input(text), tokens(text))
    return [(chunk.start, chunk.end) for chunk in level]


@dataclass
class Chunk:
    """As Chonkie has them."""

    start_index: Any
    end_index: Any
    text: Any = None


@dataclass
class Page:
    """As LangChain has them."""

    page_content: Any


class Splitter:
    """As LangChain has them."""

    def split_text(self, text: str) -> list[str]:
        return text.split("\n")


def late(text: str) -> Iterator[str]:
    yield text[:8]
    raise ValueError("too\nlate")


@pytest.mark.parametrize(
    "splitter",
    [
        Splitter(),
        str.splitlines,
        lambda text: (piece for piece in text.split("\n")),
        lambda text: [(0, 20), (21, 30)],
        lambda text: [[0, 20], [21, 30]],
        lambda text: np.array([[0, 20], [21, 30]]),
        lambda text: [(np.int64(0), np.int16(20)), (21, 30)],
        lambda text: [Chunk(0, 20), Chunk(21, 30)],
        lambda text: [Chunk(np.int64(0), np.int64(20)), Chunk(21, 30)],
        lambda text: [Chunk(None, None, text[:20]), Page(text[21:])],
    ],
)
def test_kinds(splitter: Any) -> None:
    assert spans_of(splitter) == [(0, 20), (21, 30)]


def test_pieces_may_overlap_and_repeat() -> None:
    assert spans_of(lambda text: ["a b", "b a", "a b"], "a b a b") == [(0, 3), (2, 5), (4, 7)]
    assert spans_of(lambda text: ["ab ab", "ab"], "ab ab ab") == [(0, 5), (6, 8)]
    assert spans_of(lambda text: [text[:40], text[40:]], "a b " * 20) == [(0, 40), (40, 80)]
    assert spans_of(lambda text: [(0, 3), (0, 3), (2, 7)], "a b a b") == [(0, 3), (0, 3), (2, 7)]
    # That the second follows the first leaves no place for the third.
    assert spans_of(lambda text: ["a b a b", "a b a b", "b c"], "a b a b a b c") == [(0, 7), (4, 11), (10, 13)]
    nothing = Kept(" \n", np.zeros(0, np.int32), np.zeros(0, np.int32))
    assert by_splitter(lambda text: [], "documents")(0, Input(" \n"), nothing) == [[]]
    assert by_splitter(lambda text: [text], "documents")(0, Input(" \n"), nothing) == [[]]


@pytest.mark.parametrize(
    ("splitter", "message"),
    [
        (lambda text: ["Seven eight"], "piece 0 of the splitter, 'Seven eight', does not follow in the text"),
        (lambda text: [text[:8], text[:8]], "piece 1 of the splitter, 'One two.', does not follow"),
        (lambda text: [text.lower()], "piece 0 of the splitter, 'one two."),
        (lambda text: [" ", ""], "the splitter returned nothing for a text of 30 characters"),
        (lambda text: [], "the splitter returned nothing for a text of 30 characters"),
        (lambda text: [(3, 4)], "the splitter returned nothing for a text of 30 characters"),
        (lambda text: [text[:8], (3, 3)], "spans[1] (3, 3) is empty"),
        (lambda text: [(5, 2)], "spans[0] (5, 2) is backwards"),
        (lambda text: [Chunk(0, 99)], "spans[0] (0, 99) leaves the document of 30 code points"),
        (lambda text, size: [text], "the splitter raised TypeError: "),
        (late, "the splitter raised ValueError: too late"),
    ],
)
def test_what_does_not_fit_the_text(splitter: Any, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"documents[3]: {message}")) as caught:
        spans_of(splitter)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("splitter", "message"),
    [
        (lambda text: None, "the splitter returned NoneType, expected a list of pieces"),
        (lambda text: text, "the splitter returned str, expected"),
        (lambda text: [7], "piece 0 of the splitter is int, not a text"),
        (lambda text: [(0, 5, 9)], "piece 0 of the splitter is tuple"),
        (lambda text: [(False, True)], "piece 0 of the splitter is tuple"),
        (lambda text: [Chunk(0.0, 20.0)], "piece 0 of the splitter is Chunk"),
        (lambda text: [Page(None)], "piece 0 of the splitter is Page"),
    ],
)
def test_what_is_no_piece(splitter: Any, message: str) -> None:
    with pytest.raises(InputTypeError, match=re.escape(f"documents[3]: {message}")):
        spans_of(splitter)


@pytest.mark.parametrize("splitter", [7, "a", Page("x")])
def test_what_is_no_splitter(splitter: Any) -> None:
    with pytest.raises(InputTypeError, match="expected a callable or an object with split_text"):
        by_splitter(splitter, "documents")


def test_interrupts_pass() -> None:
    def stop(text: str) -> list[str]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        spans_of(stop)


def test_levels_and_given_spans() -> None:
    small, large = by_tokens((3, 100), 0)(0, Input(TEXT), tokens())
    assert [(chunk.start, chunk.end) for chunk in small] == [(0, 8), (9, 20), (21, 30)]
    assert [(chunk.start, chunk.end) for chunk in large] == [(0, 30)]
    (level,) = by_spans("documents")(1, Input(TEXT, [(4, 8)]), tokens())
    assert [(chunk.first, chunk.last) for chunk in level] == [(1, 3)]


def test_where_the_document_is_cut() -> None:
    kept = tokens(limit=4)  # One two . Three
    (level,) = by_tokens((3,), 0)(0, Input(TEXT), kept)
    assert [(chunk.start, chunk.end) for chunk in level] == [(0, 8), (9, 14)]
    (level,) = by_splitter(Splitter(), "documents")(0, Input(TEXT), kept)
    assert [(chunk.start, chunk.end, chunk.last) for chunk in level] == [(0, 20, 4)]  # the second line has no token
    with pytest.raises(InputError, match=r"documents\[2\]: spans\[1\] \(15, 19\) lies beyond the cut: .* first 4 tok"):
        by_spans("documents")(2, Input(TEXT, [(0, 20), (15, 19)]), kept)
    with pytest.raises(InputError, match=r"spans\[0\] \(3, 4\) owns no token"):
        by_spans("documents")(2, Input(TEXT, [(3, 4)]), kept)


def test_joined_pieces() -> None:
    assert join_pieces(["ab", "", "c"], "--") == ("ab----c", [(0, 2), (4, 4), (6, 7)])
    assert join_pieces([], "--") == ("", [])
