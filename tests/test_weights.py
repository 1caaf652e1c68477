"""Weights in bfloat16 and int8 beside float32, with the real model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.texts import paragraphs

from longspan import Encoder, InputError
from longspan.batch import Float32

QUERIES = ["cat", "who wrote it?", "a", "2021-04-09", "How do I read a file line by line?", "Straße nach Köln", ""]


@pytest.fixture(scope="module")
def exact(minilm: Path) -> Encoder:
    return Encoder(minilm, weights="float32")


def cosines(ours: Float32, theirs: Float32) -> Float32:
    """Of unit vectors, row by row."""
    result: Float32 = (ours * theirs).sum(1)
    return result


@pytest.mark.parametrize(
    ("weights", "mean", "least", "least_of_queries"),
    [("bfloat16", 0.9999, 0.9999, 0.9999), ("int8", 0.999, 0.997, 0.99)],
)
def test_cosines(
    minilm: Path, exact: Encoder, weights: Any, mean: float, least: float, least_of_queries: float
) -> None:
    encoder = Encoder(minilm, weights=weights)
    found = cosines(encoder.encode(paragraphs(200)), exact.encode(paragraphs(200)))
    assert found.mean() >= mean
    assert found.min() >= least
    assert cosines(encoder.encode(QUERIES), exact.encode(QUERIES)).min() >= least_of_queries


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_chunks_and_bits(minilm: Path, weights: Any) -> None:
    texts = paragraphs(40)
    alone, together = Encoder(minilm, weights=weights, threads=1), Encoder(minilm, weights=weights, threads=2)
    assert np.array_equal(together.encode(texts), np.stack([alone.encode(text) for text in texts]))
    one, other = (encoder.encode_chunks(" ".join(texts), chunk_tokens=64) for encoder in (alone, together))
    assert np.array_equal(one.vectors, other.vectors)


def test_formats_that_are_none(minilm: Path) -> None:
    with pytest.raises(InputError, match="weights is 'int3', expected 'auto', 'float32', 'bfloat16' or 'int8'"):
        Encoder(minilm, weights="int3")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="runs on the CPU, without a backend"):
        Encoder(minilm, weights="int8", backend="reference")
