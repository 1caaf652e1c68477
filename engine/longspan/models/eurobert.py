"""EuroBERT: Llama's layers with sight of both sides; and their form for relatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..program.rope import Rope
from .config import ModelConfig
from .decoder import decoder
from .family import Body
from .masks import Sight, around


def eurobert(config: ModelConfig) -> Body:
    """`model_type: "eurobert"`."""
    return eurobert_like("eurobert", config, sights=(around(),), eps=1e-5)


def eurobert_like(
    name: str,
    config: ModelConfig,
    *,
    sights: Sequence[Sight],
    ropes: Sequence[Rope | None] | None = None,
    **options: Any,
) -> Body:
    """A body with EuroBERT's fields; the arguments are those of `decoder`."""
    bias = config.flag("attention_bias", default=False)
    mlp_bias = config.flag("mlp_bias", default=False)
    rest = {"sights": sights, "ropes": ropes, **options}
    return decoder(name, config, qkv_bias=bias, output_bias=bias, mlp_bias=mlp_bias, **rest)
