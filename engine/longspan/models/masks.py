"""Which tokens a layer's tokens see: causal or on both sides, and how far."""

from __future__ import annotations

from typing import TypedDict

from .config import ModelConfig

BIDIRECTIONAL = (
    "Bidirectional",  # NVIDIA's LlamaBidirectionalModel
    "BiModel",  # LLM2Vec's LlamaBiModel and LlamaBiForMNTP, which were LlamaEncoderModel before
    "BiForMNTP",
    "EncoderModel",
    "EncoderForMaskedLM",
    "gritlm",  # which says so nowhere else: its code is asked for sight of both sides when it embeds
)
"""What the names of architectures and of their code hold that give a causal family's weights sight of both sides."""


class Sight(TypedDict):
    """The fields of `Attention` that say what a query sees."""

    left: int | None
    right: int | None


def causal(window: int | None = None) -> Sight:
    """A query sees itself and what lies before it: all of it, or `window` tokens with itself."""
    return {"left": None if window is None else window - 1, "right": 0}


def around(radius: int | None = None) -> Sight:
    """A query sees both sides: all of them, or up to a distance of `radius`."""
    return {"left": radius, "right": radius}


def is_causal(config: ModelConfig) -> bool:
    """Whether a causal family is so here: by `is_causal`, `use_bidirectional_attention`, architecture and its code."""
    if config.flag("use_bidirectional_attention", default=False):
        if config.values.get("is_causal") is True:
            raise config.wrong("is_causal", "is true, and 'use_bidirectional_attention' too")
        return False
    names = [*config.names("architectures"), *config.table("auto_map").values.values()]
    if any(word in str(name) for name in names for word in BIDIRECTIONAL):
        return False
    return config.flag("is_causal", default=True)


def sight(config: ModelConfig, layer: int, window: int | None = None) -> Sight:
    """What a layer's tokens see in a causal family, whose checkpoints may be for both sides.

    `billm_start_index` is the first of the layers that see both sides, all of them; -1 for none. BiLLM takes it from
    the environment and writes it nowhere; BeLLM's last layers do.
    """
    start = config.values.get("billm_start_index")
    if start is None:
        return causal(window) if is_causal(config) else around(window)
    if not isinstance(start, int) or isinstance(start, bool) or start < -1:
        raise config.wrong("billm_start_index", f"is {start!r}, expected the number of a layer, or -1")
    return around() if 0 <= start <= layer else causal(window)


FULL, SLIDING = LAYER_TYPES = ("full_attention", "sliding_attention")


def layer_types(config: ModelConfig, every: int, *, full: int = -1) -> tuple[str, ...]:
    """What each layer sees: by `layer_types`, or else all layers a window but one of `every`, its number `full`."""
    layers = config.integer("num_hidden_layers")
    if config.values.get("layer_types") is not None:
        return config.choices("layer_types", layers, LAYER_TYPES)
    return tuple(FULL if layer % every == full % every else SLIDING for layer in range(layers))
