"""What can be set of a model, whatever its folder says, and is saved with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..pooling.precision import Ranges
from .recipe import SimilarityName


@dataclass(frozen=True, slots=True)
class Settings:
    """Named as the attributes of `Encoder`.

    Attributes:
        max_seq_length: tokens that the model sees at a time; None for the checkpoint's choice.
        truncate_dim: the vectors' dimension; None for the whole.
        long_text: what becomes of longer texts.
        prompts: name → text.
        default_prompt_name: the prompt of calls that name none.
        similarity_fn_name: what scores are.
        ranges: of int8 and uint8, by the vectors' dimension.
    """

    max_seq_length: int | None
    truncate_dim: int | None
    long_text: str
    prompts: dict[str, str]
    default_prompt_name: str | None
    similarity_fn_name: SimilarityName
    ranges: Mapping[int, Ranges]
