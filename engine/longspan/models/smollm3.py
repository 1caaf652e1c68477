"""SmolLM 3: Llama's layers, some of which have no positions."""

from __future__ import annotations

from .blocks import Sizes
from .config import ModelConfig
from .decoder import decoder
from .family import Body
from .masks import FULL, LAYER_TYPES, SLIDING
from .rope import read_rope


def smollm3(config: ModelConfig) -> Body:
    """`model_type: "smollm3"`: windows, where they are used, are those of layers without positions or of a type."""
    config = config.completed({"num_key_value_heads": 4, "max_position_embeddings": 32768})
    layers = config.integer("num_hidden_layers")
    turned = _turned(config, layers)
    rope = read_rope(config, Sizes.of(config).head_size, theta=2e6)
    used = config.flag("use_sliding_window", default=False)
    window = config.optional_integer("sliding_window")
    types = tuple(FULL if rope_here or not used else SLIDING for rope_here in turned)
    if config.values.get("layer_types") is not None:
        types = config.choices("layer_types", layers, LAYER_TYPES)
    bias = config.flag("attention_bias", default=False)
    return decoder(
        "smollm3",
        config,
        qkv_bias=bias,
        output_bias=bias,
        mlp_bias=config.flag("mlp_bias", default=False),
        windows=tuple(window if kind == SLIDING else None for kind in types),
        ropes=tuple(rope if rope_here else None for rope_here in turned),
    )


def _turned(config: ModelConfig, layers: int) -> tuple[bool, ...]:
    """Which layers have positions: those that `no_rope_layers` marks with 1, or all but every so many-th."""
    if config.values.get("no_rope_layers") is not None:
        marks = config.numbers("no_rope_layers", layers)
        return tuple(mark != 0 for mark in marks)
    every = config.integer("no_rope_layer_interval", default=4)
    return tuple((layer + 1) % every != 0 for layer in range(layers))
