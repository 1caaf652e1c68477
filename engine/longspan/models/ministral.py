"""Ministral: Mistral with windows by layer; Ministral 3: YaRN, and queries that grow with their position."""

from __future__ import annotations

from dataclasses import replace

from ..program.rope import PositionScale
from .config import ModelConfig
from .decoder import decoder
from .family import TEXT_PREFIXES, Body
from .llama import mistral
from .masks import FULL, LAYER_TYPES, SLIDING

# What transformers assumes where a config is silent.
MINISTRAL = {"num_key_value_heads": 8, "max_position_embeddings": 131072, "sliding_window": 4096}
MINISTRAL3 = {
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 262144,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e6,
}
ROPE3 = {
    "rope_type": "yarn",
    "factor": 16.0,
    "original_max_position_embeddings": 16384,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}


def ministral(config: ModelConfig) -> Body:
    """`model_type: "ministral"`: all layers have the window, or those that `layer_types` names."""
    config = config.completed(MINISTRAL)
    layers = config.integer("num_hidden_layers")
    window = config.optional_integer("sliding_window")
    types = (FULL if window is None else SLIDING,) * layers
    if config.values.get("layer_types") is not None:
        types = config.choices("layer_types", layers, LAYER_TYPES)
    return decoder("ministral", config, windows=tuple(window if kind == SLIDING else None for kind in types))


def ministral3(config: ModelConfig) -> Body:
    """`model_type: "ministral3"`: where there is a sliding window, all layers have it."""
    config = config.completed(MINISTRAL3)
    given = config.table("rope_parameters")
    if not given.values and not config.table("rope_scaling").values:
        config = config.changed(rope_parameters=ROPE3)
        given = config.table("rope_parameters")
    return decoder(
        "ministral3",
        config,
        windows=(config.optional_integer("sliding_window"),),
        q_scale=_position_scale(given if given.values else config.table("rope_scaling")),
    )


def mistral3(config: ModelConfig) -> Body:
    """`model_type: "mistral3"`: the text model of one that sees images too, Ministral 3 among them."""
    text = config.table("text_config")
    families = {"mistral": mistral, "ministral3": ministral3}
    kind = text.text("model_type", default="mistral")
    if kind not in families:
        raise text.wrong("model_type", f"is {kind!r}; known are {', '.join(families)}")
    return replace(families[kind](text), name="mistral3", prefixes=TEXT_PREFIXES)


def _position_scale(given: ModelConfig) -> PositionScale | None:
    beta = given.optional_number("llama_4_scaling_beta")
    return None if beta is None else PositionScale(beta, given.integer("original_max_position_embeddings"))
