"""What is measured: products of BERT-base's shapes, and its attention."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

WIDTH, HEADS = 768, 12  # BERT-base's
HEAD_SIZE = WIDTH // HEADS
SHAPES = ((WIDTH, 3 * WIDTH), (WIDTH, WIDTH), (WIDTH, 4 * WIDTH), (4 * WIDTH, WIDTH))
"""Of a product's weight: columns of the input, of the output."""


@dataclass(frozen=True)
class Work:
    """One instruction over `tokens` rows, by one thread.

    Attributes:
        instruction: a product, or attention of one text within itself.
        weights: "float32", "bfloat16" or "int8".
        tokens: T.
        width: columns of the input.
        columns: of the output.
        int8_attention: whether attention multiplies bytes.
    """

    instruction: Literal["linear", "attention"]
    weights: str
    tokens: int
    width: int
    columns: int
    int8_attention: bool = False

    @property
    def name(self) -> str:
        """For people."""
        if self.instruction == "linear":
            return f"linear {self.width} -> {self.columns}"
        return f"attention{' over int8' if self.int8_attention else ''}, head size {HEAD_SIZE}"

    @property
    def operations(self) -> float:
        """Multiplications and additions."""
        if self.instruction == "linear":
            return 2.0 * self.tokens * self.width * self.columns
        return 4.0 * self.tokens * self.tokens * WIDTH

    @property
    def precision(self) -> str:
        """What is multiplied: int8 models attend in bfloat16 unless they do over bytes."""
        if self.instruction == "attention" and self.weights == "int8":
            return "int8" if self.int8_attention else "bfloat16"
        return self.weights


def all_work(weights: str, tokens: int) -> Iterator[Work]:
    """What is measured of one format of weights."""
    for width, columns in SHAPES:
        yield Work("linear", weights, tokens, width, columns)
    yield Work("attention", weights, tokens, WIDTH, WIDTH)
    if weights == "int8":
        yield Work("attention", weights, tokens, WIDTH, WIDTH, int8_attention=True)
