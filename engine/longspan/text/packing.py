"""Packing: the windows of many texts, laid end to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..batch import Int32, Int64
from .windows import Window


@dataclass(frozen=True, slots=True)
class Document:
    """One text, ready to be packed.

    Attributes:
        prompt: [r] ids of the prompt's tokens, which every window repeats.
        ids: [n] ids of the text's own tokens.
        windows: what the model sees of them.
    """

    prompt: Int32
    ids: Int32
    windows: tuple[Window, ...]


@dataclass(frozen=True, slots=True)
class PackedTexts:
    """Segments in the packed stream, and where in them each document's tokens lie.

    A segment is one window: [prefix specials][prompt][tokens it sees][suffix specials]. Arrays with one entry per
    segment are in the order of the documents, then of their windows.

    Attributes:
        ids: [T].
        positions: [T] from 0 in each segment; -1 for a padding token.
        cu_seqlens: [B + 1] row offsets of the segments.
        document_segments: [documents + 1] segment offsets of the documents.
        lead: [B] rows before the first of the text's own tokens: specials and prompt.
        prompt: [B] rows of the prompt.
        suffix: rows after the last of the text's own tokens, in every segment.
        start: [B] the first token that the window sees.
        owned_start, owned_end: [B] the tokens that the window owns.
    """

    ids: Int32
    positions: Int32
    cu_seqlens: Int64
    document_segments: Int64
    lead: Int64
    prompt: Int64
    suffix: int
    start: Int64
    owned_start: Int64
    owned_end: Int64

    @property
    def first(self) -> Int64:
        """[documents] each document's first segment."""
        return self.document_segments[:-1]

    @property
    def last(self) -> Int64:
        """[documents] each document's last segment."""
        return self.document_segments[1:] - 1

    def row_of(self, segment: Int64, token: Int64) -> Int64:
        """The packed rows of tokens, by their segment and their place in the document."""
        return self.cu_seqlens[segment] + self.lead[segment] + token - self.start[segment]


def pack(documents: Sequence[Document], prefix: Int32, suffix: Int32, padding: int | None = None) -> PackedTexts:
    """Lay the windows of all documents end to end, each between the checkpoint's special tokens.

    A token `padding` that a text holds is one of the segment, but takes no position.
    """
    pieces: list[Int32] = []
    rows: list[tuple[int, ...]] = []  # length, lead, prompt, start, owned start, owned end
    counts = [0]
    for document in documents:
        for window in document.windows:
            pieces += (prefix, document.prompt, document.ids[window.start : window.end], suffix)
            before = len(prefix) + len(document.prompt)
            length = before + window.end - window.start + len(suffix)
            rows.append((length, before, len(document.prompt), window.start, window.owned_start, window.owned_end))
        counts.append(len(rows))
    lengths, lead, prompts, start, owned_start, owned_end = np.array(rows, np.int64).reshape(-1, 6).T.copy()
    cu_seqlens = np.concatenate(([0], np.cumsum(lengths)))
    ids = np.concatenate(pieces, dtype=np.int32) if pieces else np.zeros(0, np.int32)
    positions = np.arange(cu_seqlens[-1]) - np.repeat(cu_seqlens[:-1], lengths)
    if padding is not None and padding in ids:
        positions = _without(ids == padding, positions, cu_seqlens)
    return PackedTexts(
        ids=ids,
        positions=positions.astype(np.int32),
        cu_seqlens=cu_seqlens,
        document_segments=np.array(counts, np.int64),
        lead=lead,
        prompt=prompts,
        suffix=len(suffix),
        start=start,
        owned_start=owned_start,
        owned_end=owned_end,
    )


def _without(padding: npt.NDArray[np.bool_], positions: Int64, cu_seqlens: Int64) -> Int64:
    """Positions as they are without the tokens that are padding, which have -1."""
    before = np.concatenate(([0], np.cumsum(padding)))  # how many of these precede each row
    own = before[:-1] - np.repeat(before[cu_seqlens[:-1]], np.diff(cu_seqlens))
    return np.where(padding, -1, positions - own)
