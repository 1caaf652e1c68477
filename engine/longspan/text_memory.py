"""What texts take while they are tokenised and embedded, before anybody has seen their tokens."""

from __future__ import annotations

from collections.abc import Iterable

CHARACTERS = 4.5
"""Of a token of prose, about; in other scripts than Latin bytes of UTF-8 are nearer."""

FIRST_CALL = 2 << 20
"""Bytes that the first text takes besides: caches, stacks of threads."""

_PIECE, _PIECE_CHARACTER = 1 << 17, 40  # characters that are tokenised at a time, bytes for each
_TOKEN = 115  # bytes of a token at the worst moment: its text, ids, offsets, places, ranks of boundaries
_TOKEN_ALONE = 40  # without offsets
_TEXT = 1500  # bytes of a text's Python objects
_CHUNK = 1200  # the same of a chunk
_CHUNK_TOKENS = 192  # chunks end at sentences, so most of 256 tokens are not full
VECTOR = 300
"""Bytes of a text beside its vector for as long as a call lasts: the text as an input, and what was used of it."""


def chunks_of(tokens: int) -> int:
    """How many chunks of 256 tokens that many tokens make, about."""
    return -(-tokens // _CHUNK_TOKENS)


def chunk_bytes(chunks: int) -> int:
    """What chunks take, without their vectors."""
    return chunks * _CHUNK


def token_bytes(tokens: int, *, offsets: bool = True) -> int:
    """What a text of so many tokens takes at most, until it is embedded; `offsets` are those of chunks."""
    piece = min(int(tokens * CHARACTERS), _PIECE) * _PIECE_CHARACTER
    return piece + tokens * (_TOKEN if offsets else _TOKEN_ALONE)


def text_bytes(texts: Iterable[str], *, offsets: bool, limit: int | None = None) -> int:
    """The same of texts that are not tokenised yet, with chunks of some 256 tokens where there are offsets.

    Args:
        texts: what will be tokenised together.
        offsets: as of `token_bytes`.
        limit: the most tokens that are made of each.
    """
    count = tokens = 0
    for text in texts:
        size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        own = int(size / CHARACTERS)
        tokens += own if limit is None else min(own, limit)
        count += 1
    return token_bytes(tokens, offsets=offsets) + count * _TEXT + (chunk_bytes(chunks_of(tokens)) if offsets else 0)
