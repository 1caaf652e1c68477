"""What an encoder returns besides plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .batch import Float32
from .text.windows import Window


@dataclass(frozen=True, slots=True)
class Usage:
    """How much of one text went into its vector, in tokens of the text itself: no specials, no prompt, no overlap.

    Attributes:
        n_tokens: the text's length.
        n_used: how many of them the model saw.
        n_windows: in how many passes.
    """

    n_tokens: int
    n_used: int
    n_windows: int


@dataclass(frozen=True, slots=True, eq=False)
class DocumentEmbedding:
    """One document's chunks, each with a vector that knows the document around it.

    Attributes:
        vectors: [m, d] float32, one row per chunk.
        spans: m pairs [start, end) of code points of the document.
        vector: [d] float32, the whole document's.
        windows: what the model saw at a time, in tokens of the document; one window where the document fits.
        n_tokens: the document's length in tokens.
        token_spans: m pairs [first, last) of tokens, the ones that each chunk pools.
    """

    vectors: Float32
    spans: Sequence[tuple[int, int]]
    vector: Float32
    windows: Sequence[Window]
    n_tokens: int
    token_spans: Sequence[tuple[int, int]]
    _document: str = field(repr=False)

    def __len__(self) -> int:
        return len(self.spans)

    def text(self, index: int) -> str:
        """The text of one chunk."""
        start, end = self.spans[index]
        return self._document[start:end]
