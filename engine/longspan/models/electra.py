"""ELECTRA: BERT whose embeddings may be narrower than the layers; they are projected."""

from __future__ import annotations

from .bert import bert_like
from .config import ModelConfig
from .family import Body


def electra(config: ModelConfig) -> Body:
    """`model_type: "electra"`."""
    width = config.integer("embedding_size", default=128)
    return bert_like("electra", config, prefixes=("", "electra."), embedding_width=width)
