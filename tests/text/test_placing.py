"""Pieces of texts that repeat themselves, against splitters that know where they cut."""

from __future__ import annotations

from itertools import pairwise

import chonkie
import langchain_text_splitters as langchain
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document

from longspan import InputError
from longspan.text.placing import find_pieces

REPETITIVE = {
    "lines": "Intro here.\n\n" + "Same line. " * 200 + "\n\nEnd of it.",
    "rows": "| a | b |\n|---|---|\n" + "| 1 | 2 |\n" * 60,
    "form": "Name: ________\nAddress: ________\n[ ] yes [ ] no\n" * 40,
    "letters": "a b " * 300,
    "log": "2024-01-01 00:00:00 INFO heartbeat ok service=alpha status=200 x\n" * 1500,
}


@pytest.mark.parametrize("name", REPETITIVE)
@pytest.mark.parametrize(("size", "overlap"), [(100, 0), (100, 20), (200, 50), (60, 40)])
def test_langchain(name: str, size: int, overlap: int) -> None:
    """Its own places, and all of the text."""
    text = REPETITIVE[name]
    splitter = langchain.RecursiveCharacterTextSplitter(chunk_size=size, chunk_overlap=overlap, add_start_index=True)
    documents = splitter.create_documents([text])
    truth = [(d.metadata["start_index"], d.metadata["start_index"] + len(d.page_content)) for d in documents]
    assert find_pieces(text, documents, "documents[0]") == truth
    found = find_pieces(text, splitter.split_text(text), "documents[0]")
    assert [text[a:b] for a, b in found] == [text[a:b] for a, b in truth]
    covered = {at for start, end in found for at in range(start, end)}
    assert all(at in covered for at, letter in enumerate(text) if not letter.isspace())
    period = {"lines": 11, "rows": 10, "form": 49, "letters": 4, "log": 65}[name]
    off = [abs(ours[0] - theirs[0]) for ours, theirs in zip(found, truth, strict=True)]
    assert max(off) <= 2 * period


@settings(max_examples=300, deadline=None)
@given(
    text=st.text("ab \n", max_size=60) | st.text("abcdefgh. ", max_size=80),
    cuts=st.lists(st.tuples(st.integers(1, 12), st.integers(0, 6)), min_size=1, max_size=20),
    strip=st.booleans(),
)
def test_pieces_that_cover_the_text(text: str, cuts: list[tuple[int, int]], strip: bool) -> None:
    """Whatever the overlaps: places in order, of these words but for whitespace, without gaps."""
    pieces, at, last, whole = [], 0, -1, True
    for size, back in [*cuts, (len(text), 0)]:
        piece = text[at : at + size]
        start = at + len(piece) - len(piece.lstrip())
        if piece.strip() and start > last:
            pieces.append(piece.strip() if strip else piece)
            last = start
        else:
            whole = whole and not piece.strip()  # two pieces that begin with the same letter are not looked for
        at = max(at + 1, at + size - back)
    found = find_pieces(text, pieces, "documents[0]")
    assert ["".join(text[a:b].split()) for a, b in found] == ["".join(piece.split()) for piece in pieces]
    assert all(before[0] <= after[0] for before, after in pairwise(found))
    if whole and pieces and text.split() and text.split()[0].startswith(pieces[0].split()[0]):
        assert all(not text[a[1] : b[0]].strip() for a, b in pairwise(found))


def test_whitespace_does_not_matter() -> None:
    text = "# One\r\n\r\nTwo   three.\r\n## Four\nfive"
    pieces = ["# One\nTwo three.", "## Four five"]
    assert [text[a:b] for a, b in find_pieces(text, pieces, "")] == [text[:21], text[23:]]
    header = langchain.MarkdownHeaderTextSplitter([("#", "1"), ("##", "2")], strip_headers=False)
    assert [text[a:b] for a, b in find_pieces(text, header.split_text(text), "")] == [text[:21], text[23:]]
    assert find_pieces("a  b\t\tc d", ["a b c d"], "") == [(0, 9)]


def test_places_are_those_of_the_words() -> None:
    """A place that comes with other words than the text has there counts for nothing."""
    text = "Hello there world. Hello again."
    hello = Document(page_content="Hello", metadata={"start_index": 19})
    assert find_pieces(text, [hello], "") == [(19, 24)]
    assert find_pieces(text, [Document(page_content="there", metadata={"start_index": 0})], "") == [(6, 11)]
    with pytest.raises(InputError, match="piece 0 of the splitter, 'GOODBYE', does not follow in the text"):
        find_pieces(text, [Document(page_content="GOODBYE", metadata={"start_index": 0})], "d")
    with pytest.raises(InputError, match="piece 0 of the splitter, 'hello', does not follow"):
        find_pieces(text, [chonkie.Chunk(text="hello", start_index=0, end_index=5, token_count=1)], "d")


def test_what_is_left_out_between_pieces() -> None:
    text = "one --- two --- two --- three"
    assert find_pieces(text, ["one", "two", "two", "three"], "") == [(0, 3), (8, 11), (16, 19), (24, 29)]
    assert find_pieces("a\n\n\nb", ["a", "", "\n", "b"], "") == [(0, 1), (4, 5)]
