"""A corpus of any size, made on the fly: words of real paragraphs, drawn by frequency, in paragraphs of all lengths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from . import texts

MEDIAN_WORDS, SPREAD = 60, 0.8  # of a paragraph: log-normal, so that one in a hundred has some 400
SHORTEST, LONGEST = 3, 2000


def synthetic(characters: int, seed: int = 0, text_characters: int | None = None) -> Iterator[str]:
    """Texts of so many characters in all, always the same for one seed and one Python version.

    `text_characters` joins paragraphs into texts of that length; without it, every paragraph is a text.
    """
    pending: list[str] = []
    size = 0
    for paragraph in _paragraphs(characters, seed):
        if text_characters is None:
            yield paragraph
            continue
        pending.append(paragraph)
        size += len(paragraph) + 2
        if size >= text_characters:
            yield "\n\n".join(pending)
            pending, size = [], 0
    if pending:
        yield "\n\n".join(pending)


def _paragraphs(characters: int, seed: int) -> Iterator[str]:
    counts = Counter(word for text in texts.paragraphs() for word in text.split())
    words = sorted(counts)
    chances = np.array([counts[word] for word in words], np.float64)
    bounds = np.cumsum(chances / chances.sum())
    random = np.random.default_rng(seed)
    left = characters
    while left > 0:
        length = int(np.clip(random.lognormal(np.log(MEDIAN_WORDS), SPREAD), SHORTEST, LONGEST))
        chosen = np.minimum(np.searchsorted(bounds, random.random(length)), len(words) - 1)
        paragraph = " ".join([words[i] for i in chosen.tolist()])[:left]
        left -= len(paragraph)
        yield paragraph
