"""What an encoder returns besides plain arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .pooling.precision import Vectors
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
class Chunks:
    """One way of cutting a document, with a vector per chunk.

    Attributes:
        vectors: [m, d], one row per chunk; float32, or what `precision` asked for.
        spans: m pairs [start, end) of code points of the document.
        token_spans: m pairs [first, last) of tokens, the ones that each chunk pools.
    """

    vectors: Vectors
    spans: Sequence[tuple[int, int]]
    token_spans: Sequence[tuple[int, int]]
    _document: str = field(repr=False)

    def __len__(self) -> int:
        return len(self.spans)

    def text(self, index: int) -> str:
        """The text of one chunk."""
        start, end = self.spans[index]
        return self._document[start:end]


@dataclass(frozen=True, slots=True, eq=False)
class DocumentEmbedding:
    """One document's chunks, each with a vector that knows the document around it.

    Attributes:
        chunks: the chunks; with several levels, those of the first.
        levels: the chunks by their size in tokens, where sizes were asked for.
        vector: [d], the whole document's.
        windows: what the model saw at a time, in tokens of the document; one window where the document fits.
        n_tokens: the document's length in tokens, as far as the model saw it.
        cut: whether the document goes on beyond these, under `long_text="truncate"`.
    """

    chunks: Chunks
    levels: Mapping[int, Chunks]
    vector: Vectors
    windows: Sequence[Window]
    n_tokens: int
    cut: bool

    def __len__(self) -> int:
        return len(self.chunks)

    @property
    def vectors(self) -> Vectors:
        """[m, d], one row per chunk of the first level."""
        return self.chunks.vectors

    @property
    def spans(self) -> Sequence[tuple[int, int]]:
        """m pairs [start, end) of code points of the document, of the first level."""
        return self.chunks.spans

    @property
    def token_spans(self) -> Sequence[tuple[int, int]]:
        """m pairs [first, last) of tokens, of the first level."""
        return self.chunks.token_spans

    def text(self, index: int) -> str:
        """The text of one chunk of the first level."""
        return self.chunks.text(index)


def converted(result: Any, *, to_tensor: bool, to_numpy: bool) -> Any:
    """Arrays as sentence-transformers' flags ask for them: numpy, one torch tensor, or a list of tensors."""
    if to_numpy and not to_tensor:
        return result
    import torch

    if isinstance(result, list):
        return [torch.from_numpy(matrix) for matrix in result]
    tensor = torch.from_numpy(result)
    return tensor if to_tensor else list(tensor)
