"""RoBERTa, XLM-RoBERTa and CamemBERT: BERT whose positions count from behind the padding's."""

from __future__ import annotations

from .bert import bert_like
from .config import ModelConfig
from .family import Body


def roberta(config: ModelConfig) -> Body:
    """`model_type: "roberta"`."""
    return _body("roberta", config)


def xlm_roberta(config: ModelConfig) -> Body:
    """`model_type: "xlm-roberta"`."""
    return _body("xlm-roberta", config)


def camembert(config: ModelConfig) -> Body:
    """`model_type: "camembert"`."""
    return _body("camembert", config)


def _body(name: str, config: ModelConfig) -> Body:
    padding = config.natural("pad_token_id", default=1)
    return bert_like(name, config, prefixes=("", "roberta."), first_position=padding + 1, padding=padding)
