"""From documents and spans to partials: contiguous rows with weights, one per (span, window)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..batch import Int32, Int64, Partials
from ..text.packing import PackedTexts
from .modes import Mode


def document_partials(texts: PackedTexts, mode: Mode, *, include_prompt: bool) -> Partials:
    """One vector per document over the tokens that its windows own.

    Special tokens count as the checkpoint's pooling counts them: the leading ones of the first window and the trailing
    ones of the last, and so does the prompt. Where `include_prompt` is False and there is a prompt, it is left out
    with what precedes it, and the other tokens keep their position weights; `mode.own` leaves out as much, prompt or no
    prompt, and counts anew. The first or last rows of each window weigh as many tokens as the window owns. A document
    without the token that the mode is about has no partial.
    """
    segments = len(texts.lead)
    documents = np.repeat(np.arange(len(texts.first)), np.diff(texts.document_segments))
    everything = np.arange(segments)
    excluded = _excluded(texts, mode, include_prompt=include_prompt)
    if mode.rows in ("first", "last"):
        begin, end = texts.cu_seqlens[:-1], texts.cu_seqlens[1:]
        # An empty text without special tokens has no row, and must not take its neighbour's.
        first, last = np.minimum(begin + excluded, end), np.maximum(end - 1, begin)
        starts = first if mode.rows == "first" else np.maximum(end - mode.last, np.minimum(first, last))
        ends = np.minimum(starts + 1, end) if mode.rows == "first" else end
        weights = np.maximum(texts.owned_end - texts.owned_start, 1) / np.maximum(ends - starts, 1)
        return _collect(documents, len(texts.first), starts, ends, weights, step=0)
    starts = texts.row_of(everything, texts.owned_start)
    ends = texts.row_of(everything, texts.owned_end)
    starts[texts.first] -= (texts.lead - excluded)[texts.first]
    ends[texts.last] += texts.suffix
    if mode.rows == "token":
        documents, starts, ends = _of_token(texts.ids, mode.token, documents, starts, ends)
    if not mode.by_position:
        return _collect(documents, len(texts.first), starts, ends, np.ones(len(starts)), step=0)
    counted = np.concatenate(([0], np.cumsum(ends - starts)))
    before = counted[:-1] - np.repeat(counted[texts.first], np.diff(texts.document_segments))
    return _collect(documents, len(texts.first), starts, ends, before + (0 if mode.own else excluded) + 1, step=1)


def _excluded(texts: PackedTexts, mode: Mode, *, include_prompt: bool) -> Int64:
    """[B] how many leading rows of each window do not count."""
    if mode.own and mode.rows != "first":
        return texts.lead
    if mode.own or include_prompt:
        return np.zeros_like(texts.lead)
    return np.where(texts.prompt > 0, texts.lead, 0)


def span_partials(texts: PackedTexts, document: int, firsts: Int64, lasts: Int64, mode: Mode) -> Partials:
    """One vector per span of one document's tokens.

    Args:
        texts: the packed windows.
        document: which document the spans are of.
        firsts, lasts: [m] token ranges [first, last), none of them empty.
        mode: the pooling. A span has no special tokens: "first" (cls) pools the mean of its tokens, "last" its last
            ones, and "token" those of its tokens that are the mode's, or else all.
    """
    begin, end = int(texts.document_segments[document]), int(texts.document_segments[document + 1])
    if mode.rows == "last":
        firsts = np.maximum(lasts - mode.last, firsts)
    owned_start, owned_end = texts.owned_start[begin:end], texts.owned_end[begin:end]
    window_first = np.searchsorted(owned_end, firsts, side="right")
    window_last = np.searchsorted(owned_start, lasts, side="left")
    counts = window_last - window_first
    spans = np.repeat(np.arange(len(firsts)), counts)
    within = np.arange(len(spans)) - np.repeat(np.cumsum(counts) - counts, counts)
    windows = window_first[spans] + within
    tokens_first = np.maximum(firsts[spans], owned_start[windows])
    tokens_last = np.minimum(lasts[spans], owned_end[windows])
    segments = begin + windows
    starts, ends = texts.row_of(segments, tokens_first), texts.row_of(segments, tokens_last)
    if mode.rows == "token":
        found, rows, row_ends = _of_token(texts.ids, mode.token, spans, starts, ends)
        others = np.isin(spans, found, invert=True)
        order = np.argsort(np.concatenate((found, spans[others])), kind="stable")
        spans, starts, ends = (
            np.concatenate((mine, all_rows[others]))[order]
            for mine, all_rows in ((found, spans), (rows, starts), (row_ends, ends))
        )
    weights = tokens_first + 1 if mode.by_position else np.ones(len(spans))
    return _collect(spans, len(firsts), starts, ends, weights, step=int(mode.by_position))


def _of_token(ids: Int32, token: int | None, vectors: Int64, starts: Int64, ends: Int64) -> tuple[Int64, Int64, Int64]:
    """The single rows of a token in ranges [starts, ends), and the vectors of these ranges, in their order."""
    places = np.flatnonzero(ids == token)
    before, behind = np.searchsorted(places, starts), np.searchsorted(places, ends)
    counts = np.maximum(behind - before, 0)
    within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    rows = places[np.repeat(before, counts) + within]
    return np.repeat(vectors, counts), rows, rows + 1


def token_partials(texts: PackedTexts) -> tuple[Partials, Int64]:
    """One vector per counted row, special tokens and prompt included, and how many each document has: [documents]."""
    whole = document_partials(texts, Mode("sum", "mean"), include_prompt=True)
    lengths = whole.ends - whole.starts
    offsets = np.cumsum(lengths) - lengths
    rows = np.arange(int(lengths.sum())) + np.repeat(whole.starts - offsets, lengths)
    counts = np.add.reduceat(np.append(lengths, 0), np.minimum(whole.cu_vectors[:-1], whole.count))
    counts[np.diff(whole.cu_vectors) == 0] = 0
    return _collect(np.arange(len(rows)), len(rows), rows, rows + 1, np.ones(len(rows)), step=0), counts


def join(parts: list[Partials]) -> Partials:
    """The vectors of several sets of partials, one set after the other."""
    if len(parts) == 1:
        return parts[0]
    cu_vectors, offset = [np.zeros(1, np.int64)], 0
    for part in parts:
        cu_vectors.append(part.cu_vectors[1:] + offset)
        offset += part.count
    return Partials(
        starts=np.concatenate([part.starts for part in parts]),
        ends=np.concatenate([part.ends for part in parts]),
        first_weight=np.concatenate([part.first_weight for part in parts]),
        weight_step=np.concatenate([part.weight_step for part in parts]),
        cu_vectors=np.concatenate(cu_vectors),
    )


def _collect(vectors: Int64, count: int, starts: Int64, ends: Int64, weights: npt.NDArray[Any], step: int) -> Partials:
    """Partials in the order given; runs without rows are left out, so a vector may end up with none."""
    keep = ends > starts
    sizes = np.bincount(vectors[keep], minlength=count)
    return Partials(
        starts=np.ascontiguousarray(starts[keep], np.int64),
        ends=np.ascontiguousarray(ends[keep], np.int64),
        first_weight=weights[keep].astype(np.float32),
        weight_step=np.full(int(keep.sum()), step, np.float32),
        cu_vectors=np.concatenate(([0], np.cumsum(sizes))).astype(np.int64),
    )
