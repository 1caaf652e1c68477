"""How a call treats its texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from .checks import one_of
from .pooling.precision import Precision, Ranges
from .text.windows import LongText


@dataclass(frozen=True, slots=True)
class Options:
    """How a call treats its texts.

    Attributes:
        prompt: put before every text.
        max_seq_length: tokens that the model sees at a time, specials and prompt included.
        long_text: what becomes of longer texts.
        dimension: of the vectors.
        unit: whether vectors have unit length.
        precision: of the vectors.
        ranges: for int8 and uint8, from calibration.
        window_overlap: tokens that neighbouring windows share; None means a quarter of a window.
        count_tokens: whether the length of a text that is cut is of interest.
        show_progress: as in `Progress`.
        what: how the caller names the inputs, for messages.
    """

    prompt: str
    max_seq_length: int
    long_text: LongText
    dimension: int
    unit: bool
    precision: Precision = "float32"
    ranges: Ranges | None = None
    window_overlap: int | None = None
    count_tokens: bool = False
    show_progress: bool | None = None
    what: str = "inputs"


def check_long_text(value: str) -> LongText:
    """The policy by name; raises as `one_of`."""
    policy: LongText = one_of(value, get_args(LongText), "long_text")
    return policy
