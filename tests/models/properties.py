"""What holds of every checkpoint, in every format: bits, order, windows, sums of chunks, the arena, saving."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from longspan import Encoder, LongTextWarning
from longspan.executors.cpu import CpuExecutor
from longspan.weights import Format

PAGE = 4096
WINDOW, SIZES = 40, (7, 30)


def check_properties(folder: Path, texts: Sequence[str], weights: Format) -> None:
    """Raise unless all of them hold for these texts in a format, on the tier that the environment asks for.

    Windows and sums are looked at in float32 alone: rows are, whatever the weights. Only narrow weights are saved as
    panels.
    """
    single, encoder = check_bits(folder, texts, weights)
    if weights != "float32":
        _check_saved(encoder, list(texts))
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LongTextWarning)
        single.max_seq_length = encoder.max_seq_length = min(WINDOW, encoder.max_seq_length)
        _check_bits(single, encoder, list(texts))
        _check_sums(encoder, texts)


def check_bits(folder: Path, texts: Sequence[str], weights: Format) -> tuple[Encoder, Encoder]:
    """Raise unless bits and the size of the arena are as they should; returns encoders of one and of two threads."""
    single, encoder = (Encoder(folder, device="cpu", threads=threads, weights=weights) for threads in (1, 2))
    _check_arena(single, texts)
    _check_bits(single, encoder, list(texts))
    return single, encoder


def _check_bits(single: Encoder, encoder: Encoder, texts: list[str]) -> None:
    """A vector is that of its text: not of the batch, the order, the threads or the schedule."""
    task = _task(encoder)
    expected = _bits(encoder.encode(texts, task=task))
    assert _bits(encoder.encode(texts[::-1], task=task)) == expected[::-1]
    assert [encoder.encode(text, task=task).tobytes() for text in texts] == expected
    assert _bits(single.encode(texts, task=task)) == expected
    assert _bits(encoder.stream(texts, task=task)) == expected


def _check_sums(encoder: Encoder, texts: Sequence[str]) -> None:
    """Under mean pooling, chunks that cover a text and its special tokens add up to the text."""
    pipeline = encoder._pipeline
    if pipeline.recipe.pooling != ("mean",):  # a causal language model pools the last token
        return
    lead, tail = len(pipeline.tokenizer.prefix), len(pipeline.tokenizer.suffix)
    way: dict[str, Any] = {"prompt": "", "task": "document" if "document" in encoder.tasks else None}
    for text, document in zip(texts, encoder.encode_chunks(list(texts), chunk_tokens=SIZES, **way), strict=True):
        rows = encoder.encode(text, output_value="token_embeddings", **way).astype(np.float64)
        assert len(rows) == lead + document.n_tokens + tail
        specials = rows[:lead].sum(0) + rows[len(rows) - tail :].sum(0)
        whole = encoder.encode(text, **way)
        assert document.vector.tobytes() == whole.tobytes()
        for level in document.levels.values():
            counts = np.array([last - first for first, last in level.token_spans], np.float64)
            assert counts.sum() == document.n_tokens
            total = specials + (counts[:, None] * level.vectors).sum(0)
            bound = 1e-5 * max(float(np.abs(rows).max()), 1e-3)
            np.testing.assert_allclose(total / len(rows), whole, rtol=0, atol=bound)


def _check_saved(before: Encoder, texts: list[str]) -> None:
    """Weights that were written in panels give the vectors that they gave before, and are not copied."""
    with tempfile.TemporaryDirectory() as place:
        before.save(Path(place) / "saved")
        after = Encoder(Path(place) / "saved", device="cpu", threads=1)
    for task in dict.fromkeys((_task(before), *before.tasks)):
        assert _bits(after.encode(texts, task=task)) == _bits(before.encode(texts, task=task))
    chunked, again = (encoder.encode_chunks(texts, chunk_tokens=SIZES) for encoder in (before, after))
    for mine, theirs in zip(again, chunked, strict=True):
        assert all(_bits(mine.levels[size].vectors) == _bits(theirs.levels[size].vectors) for size in SIZES)
    held = [encoder._pipeline.executor for encoder in (before, after)]
    packed, mapped = (executor for executor in held if isinstance(executor, CpuExecutor))
    assert mapped._program.weight_bytes < packed._program.weight_bytes
    assert mapped._panels > 0


def _check_arena(encoder: Encoder, texts: Sequence[str]) -> None:
    """What the first batch of an encoder with one thread takes is what its footprint said."""
    pipeline = encoder._pipeline
    executor = pipeline.executor
    assert isinstance(executor, CpuExecutor)
    tail, tensors = pipeline.tail(encoder.get_embedding_dimension(), pipeline.unit), pipeline.tail_tensors
    specials = len(pipeline.tokenizer.prefix) + len(pipeline.tokenizer.suffix)
    lengths = [len(text.split()) + specials for text in texts]
    said = executor.footprint(np.cumsum([0, *lengths]), tail, tensors)
    encoder.encode(list(texts), prompt="", task=_task(encoder))
    after = executor.footprint(np.zeros(1, np.int64), tail, tensors)
    assert said.arena_now == 0
    assert said.arena - executor._tails._bound[tail][1][1] <= after.arena_now <= said.arena + 2 * PAGE


def _task(encoder: Encoder) -> str | None:
    """That of documents, where a call needs one."""
    return None if None in encoder._routing.recipes.tasks else encoder.document_task


def _bits(vectors: Any) -> list[bytes]:
    return [vector.tobytes() for vector in vectors]
