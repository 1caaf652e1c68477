"""A model that transformers runs: its token vectors come from outside, and are pooled here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..checkpoint.transformer import UNLIMITED
from ..errors import CheckpointError
from .family import Body, tokens_buffer

POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_trained_positions", "n_ctx")
TABLE = "position_embeddings"


def foreign(folder: Path) -> tuple[Body, int]:
    """The body of any model of transformers, and how many token ids it has embeddings for.

    transformers says what they are: by its own config, which has one name for what checkpoints call by several, and by
    the model, which is made of it without memory.

    Raises:
        CheckpointError: transformers does not know the model, or it is not one of text.
    """
    import torch
    from transformers import AutoConfig, AutoModel

    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModel.from_config(config, trust_remote_code=False)
        text = config.get_text_config()
    except Exception as error:  # transformers raises all kinds
        raise CheckpointError(f"{folder} cannot be loaded by transformers: {error}") from error
    width, vocabulary = (_size(folder, text, name) for name in ("hidden_size", "vocab_size"))
    x = tokens_buffer("x", width)
    return Body(config.model_type, (), x, max_positions=_positions(text, model), inputs=(x,)), vocabulary


def _size(folder: Path, config: Any, name: str) -> int:
    size = getattr(config, name, None)
    if not isinstance(size, int) or size < 1:
        raise CheckpointError(
            f"{folder / 'config.json'}: field '{name}' is missing, and no other stands for it in transformers; "
            "models of text have one."
        )
    return size


def _positions(config: Any, model: Any) -> int:
    """How many positions there are, without those that RoBERTa's relatives keep for padding."""
    named = (getattr(config, name, None) for name in POSITIONS)
    most = next((size for size in named if isinstance(size, int) and size > 0), UNLIMITED)
    tables = (module for name, module in model.named_modules() if name.rpartition(".")[2] == TABLE)
    kept = [table.padding_idx for table in tables if getattr(table, "padding_idx", None) is not None]
    return most - max(kept) - 1 if kept else most
