"""UltraBERT: EuroBERT's layers, of which most see a window and turn with a base of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .blocks import Sizes
from .config import ModelConfig
from .eurobert import eurobert_like
from .family import Body
from .masks import FULL, SLIDING, around, layer_types
from .rope import DEFAULT_THETA, read_rope


def ultrabert(config: ModelConfig) -> Body:
    """`model_type: "ultrabert"`; older checkpoints have a window and a base for each layer."""
    radii = config.values.get("attention_windows")
    kinds, radius = _by_kind(config) if radii is None else _by_layer(config)
    thetas, rest = _thetas(config, kinds)
    head_size = Sizes.of(config).head_size
    ropes = {kind: read_rope(rest, head_size, layer_type=kind, theta=theta) for kind, theta in thetas.items()}
    sights = {FULL: around(), SLIDING: around(radius)}
    return eurobert_like(
        "ultrabert",
        config,
        sights=[sights[kind] for kind in kinds],
        ropes=[ropes[kind] for kind in kinds],
        prefixes=("", "model.", "ultrabert."),
    )


def _by_kind(config: ModelConfig) -> tuple[tuple[str, ...], int]:
    """The kind of each layer, and the greatest distance that sliding ones see."""
    return layer_types(config, 3), config.natural("sliding_window", default=128)


def _by_layer(config: ModelConfig) -> tuple[tuple[str, ...], int]:
    """The same from `attention_windows`, whose entries are 0 or null for layers without."""
    layers = config.integer("num_hidden_layers")
    name, values = "attention_windows", config.values["attention_windows"]
    if not isinstance(values, list) or len(values) != layers or not all(_is_radius(value) for value in values):
        raise config.wrong(name, f"is {values!r}, expected a list of {layers} integers of at least 0 or null")
    found = {value for value in values if value}
    if len(found) > 1:
        raise config.wrong(name, f"holds the windows {sorted(found)}; only one for all layers is supported")
    kinds = tuple(SLIDING if value else FULL for value in values)
    if config.values.get("layer_types") is not None and layer_types(config, 1) != kinds:
        raise config.wrong("layer_types", f"contradicts {name!r}")
    return kinds, found.pop() if found else 0


def _is_radius(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)


def _thetas(config: ModelConfig, kinds: tuple[str, ...]) -> tuple[Mapping[str, float], ModelConfig]:
    """The base of each kind of layers where `rope_parameters` have none, and the config without a list of bases."""
    rest = replace(config, values={name: value for name, value in config.values.items() if name != "rope_theta"})
    if config.values.get("rope_parameters"):
        return dict.fromkeys((FULL, SLIDING), DEFAULT_THETA), rest
    thetas = {FULL: 2_560_000.0, SLIDING: 10_000.0}
    if config.values.get("rope_theta") is None:
        return thetas, rest
    for kind in (FULL, SLIDING):
        values = config.numbers("rope_theta", len(kinds))
        found = {value for value, layer_kind in zip(values, kinds, strict=True) if layer_kind == kind}
        if len(found) > 1:
            raise config.wrong(
                "rope_theta", f"holds the bases {sorted(found)} for layers with {kind}; one is supported"
            )
        thetas[kind] = found.pop() if found else thetas[kind]
    return thetas, rest
