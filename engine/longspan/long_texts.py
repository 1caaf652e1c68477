"""The texts of a call that did not fit the model, and the one warning about them."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import LongTextWarning
from .options import Options
from .results import Usage


@dataclass(slots=True)
class LongTexts:
    """How many of a call's texts did not fit. Counts alone: a stream may be long.

    Attributes:
        texts: how many there were.
        long: how many of them did not fit.
        longest: tokens of the longest of these.
    """

    texts: int = 0
    long: int = 0
    longest: int = 0

    def add(self, usages: Sequence[Usage]) -> LongTexts:
        """Count some more."""
        lengths = [usage.n_tokens for usage in usages if usage.n_windows > 1 or usage.n_used < usage.n_tokens]
        self.texts += len(usages)
        self.long += len(lengths)
        self.longest = max(self.longest, *lengths, 0)
        return self


def warn_long_texts(found: LongTexts, options: Options) -> None:
    """Say once what happened to how many texts, if any did not fit; the warning points at the caller of the library."""
    if found.long:
        done = "were cut" if options.long_text == "truncate" else "were embedded in overlapping windows"
        counted = options.count_tokens or options.long_text != "truncate"
        longest = f" (the longest has {found.longest})" if counted else ""
        noun = "documents" if options.what == "documents" else "texts"
        message = (
            f"{found.long} of {found.texts} {noun} are longer than the {options.max_seq_length} tokens that the model "
            f"sees at a time{longest} and {done}; choose with long_text='window', 'truncate' or 'error'"
        )
        warnings.warn(LongTextWarning(message, found.long), stacklevel=_levels_to_caller())


def _levels_to_caller() -> int:
    """The `stacklevel` with which the function that calls this one warns about the first frame outside the package."""
    package = str(Path(__file__).parent)
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        level, frame = level + 1, frame.f_back
    return level
