"""Which tokens a layer's tokens see: causal or on both sides, and how far."""

from __future__ import annotations

from typing import TypedDict

from .config import ModelConfig

BIDIRECTIONAL = ("Bidirectional", "Bidirec", "BiModel", "BiForMNTP")
"""What the names of architectures hold that give a causal family's weights sight of both sides: LLM2Vec's LlamaBiModel,
NVIDIA's LlamaBidirectionalModel."""


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
    """Whether a causal family is so here: by `is_causal`, `use_bidirectional_attention` and the architecture."""
    if config.flag("use_bidirectional_attention", default=False):
        return False
    names = config.fields.get("architectures") or []
    if any(word in str(name) for name in names for word in BIDIRECTIONAL):
        return False
    return config.flag("is_causal", default=True)


FULL, SLIDING = LAYER_TYPES = ("full_attention", "sliding_attention")


def layer_types(config: ModelConfig, every: int, *, full: int = -1) -> tuple[str, ...]:
    """What each layer sees: by `layer_types`, or else all layers a window but one of `every`, its number `full`."""
    layers = config.integer("num_hidden_layers")
    if config.fields.get("layer_types") is not None:
        return config.choices("layer_types", layers, LAYER_TYPES)
    return tuple(FULL if layer % every == full % every else SLIDING for layer in range(layers))
