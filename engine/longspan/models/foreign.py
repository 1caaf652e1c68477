"""A model that transformers runs: its token vectors come from outside, and are pooled here."""

from __future__ import annotations

from ..errors import CheckpointError
from .config import ModelConfig
from .family import UNLIMITED, Body, tokens_buffer

POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_trained_positions", "n_ctx")
WIDTHS = ("hidden_size", "n_embd", "d_model", "dim")


def foreign(config: ModelConfig) -> Body:
    """The body of any model, by what its config calls its width and its positions.

    Raises:
        CheckpointError: no field tells the width.
    """
    width = next((size for size in map(config.optional_integer, WIDTHS) if size), None)
    if width is None:
        raise CheckpointError(f"{config.path}: none of the fields {', '.join(WIDTHS)} tells the width of its vectors")
    positions = next((size for size in map(config.optional_integer, POSITIONS) if size), UNLIMITED)
    x = tokens_buffer("x", width)
    return Body(config.text("model_type", default="foreign"), (), x, max_positions=positions, inputs=(x,))
