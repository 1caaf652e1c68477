"""Llama and its closest relatives, which differ in biases, head norms and windows."""

from __future__ import annotations

from .config import ModelConfig
from .decoder import decoder
from .family import Body

# What transformers assumes where a config is silent; null is no window.
MISTRAL = {"num_key_value_heads": 8, "max_position_embeddings": 131072, "sliding_window": 4096}
QWEN = {"num_key_value_heads": 32, "max_position_embeddings": 32768, "sliding_window": 4096}
QWEN3 = {**QWEN, "head_dim": 128}
MAX_WINDOW_LAYERS = 28


def llama(config: ModelConfig) -> Body:
    """`model_type: "llama"`: projections have biases where `attention_bias` says so."""
    bias = config.flag("attention_bias", default=False)
    return decoder("llama", config, qkv_bias=bias, output_bias=bias, mlp_bias=config.flag("mlp_bias", default=False))


def mistral(config: ModelConfig) -> Body:
    """`model_type: "mistral"`: without biases; where there is a sliding window, all layers have it."""
    config = config.completed(MISTRAL)
    return decoder("mistral", config, windows=(config.optional_integer("sliding_window"),))


def qwen2(config: ModelConfig) -> Body:
    """`model_type: "qwen2"`: queries, keys and values have biases."""
    config = config.completed(QWEN)
    return decoder("qwen2", config, qkv_bias=True, windows=qwen_windows(config))


def qwen3(config: ModelConfig) -> Body:
    """`model_type: "qwen3"`: queries and keys are normalised head by head."""
    config = config.completed(QWEN3)
    bias = config.flag("attention_bias", default=False)
    return decoder("qwen3", config, qkv_bias=bias, output_bias=bias, head_norms=True, windows=qwen_windows(config))


def qwen_windows(config: ModelConfig) -> tuple[int | None, ...]:
    """The sliding window of each layer: by `layer_types`, or of the layers from `max_window_layers` on."""
    layers = config.integer("num_hidden_layers")
    if not config.flag("use_sliding_window", default=False):
        return (None,) * layers
    window = config.optional_integer("sliding_window")
    if config.values.get("layer_types") is not None:
        types = config.choices("layer_types", layers, ("full_attention", "sliding_attention"))
        return tuple(window if name == "sliding_attention" else None for name in types)
    first = config.integer("max_window_layers", default=MAX_WINDOW_LAYERS)
    return tuple(window if layer >= first else None for layer in range(layers))
