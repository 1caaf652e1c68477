"""Documents given as lists of chunks, with a special token between the chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..batch import Int32
from .tokenizer import Tokens


@dataclass(frozen=True, slots=True)
class Separator:
    """A special token between chunks.

    Attributes:
        content: what stands for it in the document's text.
        token: its id.
    """

    content: str
    token: int


def separate(pieces: Sequence[Tokens], lengths: Sequence[int], separator: Separator) -> Tokens:
    """One document's tokens from those of its chunks, with the separator's id between them.

    The separator is no text: a chunk that holds its content keeps what the tokenizer makes of that.

    Args:
        pieces: at least one, with offsets.
        lengths: code points of each chunk.
        separator: counts as the code points of its content.
    """
    marker, width = np.array([separator.token], np.int32), len(separator.content)
    ids: list[Int32] = []
    starts: list[Int32] = []
    ends: list[Int32] = []
    position = 0
    for piece, length in zip(pieces, lengths, strict=True):
        assert piece.starts is not None
        assert piece.ends is not None
        if ids:
            ids.append(marker)
            starts.append(np.array([position], np.int32))
            position += width
            ends.append(np.array([position], np.int32))
        ids.append(piece.ids)
        starts.append(piece.starts + np.int32(position))
        ends.append(piece.ends + np.int32(position))
        position += length
    return Tokens(np.concatenate(ids), np.concatenate(starts), np.concatenate(ends))
