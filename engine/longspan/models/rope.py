"""Rotary positions as checkpoints describe them: `rope_parameters`, or the older `rope_theta` and `rope_scaling`."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ..batch import Float32
from ..program.rope import DynamicNtk, Frequencies, Rope, inverse_frequencies
from .config import ModelConfig
from .masks import LAYER_TYPES

DEFAULT_THETA = 10000.0
PART = "partial_rotary_factor"


def read_rope(
    config: ModelConfig,
    head_size: int,
    *,
    layer_type: str | None = None,
    theta: float = DEFAULT_THETA,
    theta_field: str = "rope_theta",
    stretched: bool = True,
    part: float | None = None,
    part_field: str = PART,
    interleaved: bool = False,
) -> Rope | None:
    """The rotary positions of a checkpoint's layers.

    Args:
        config: the checkpoint's.
        head_size: of the heads.
        layer_type: of the layers, where `rope_parameters` differ by type.
        theta: the base, where the config has none.
        theta_field: where older configs have the base.
        stretched: whether the `rope_scaling` of older configs is for these layers. Beside `rope_parameters` it has to
            say the same.
        part: which part of a head is turned where the config does not say so, in families that turn a part. In others
            the config's `partial_rotary_factor` counts for stretched positions only, as in transformers.
        part_field: where older configs have the part.
        interleaved: whether neighbours are turned, instead of halves.

    Returns:
        None for layers that the config gives no positions.
    """

    def rope_of(given: ModelConfig) -> Rope:
        base = given.positive("rope_theta", default=config.positive(theta_field, default=theta))
        return _rope(config, given, head_size, base, part, part_field, interleaved=interleaved)

    given, older = _of_layers(config, layer_type), config.table("rope_scaling")
    if given is None:
        return None
    if not stretched or not older.values:
        return rope_of(given)
    if layer_type is not None:  # what is said of all layers is beside what is said of some
        kind = {} if older.values.get("type") is None else {"rope_type": older.values["type"]}
        older = replace(older, values={**given.values, **kind, **older.values})
    rope = rope_of(older)
    if given.values and rope_of(given) != rope:
        raise config.wrong("rope_scaling", f"says other positions than '{given.prefix.removesuffix('.')}'")
    return rope


def _of_layers(config: ModelConfig, layer_type: str | None) -> ModelConfig | None:
    """What `rope_parameters` says of layers of that type, where they differ by type; None where it is null."""
    given = config.table("rope_parameters")
    if layer_type is None:
        return given
    if given.values and not any(name in given.values for name in LAYER_TYPES):
        raise config.wrong("rope_parameters", f"has none of {', '.join(map(repr, LAYER_TYPES))}, by which it is read")
    known = layer_type not in given.values or given.values[layer_type] is not None
    return given.table(layer_type) if known else None


def _rope(
    config: ModelConfig,
    given: ModelConfig,
    head_size: int,
    theta: float,
    part: float | None,
    part_field: str,
    *,
    interleaved: bool,
) -> Rope:
    """The positions that `given` says, with a base and with what else `read_rope` is told."""
    kind = given.text("rope_type", default=given.text("type", default="default"))
    source, field = (given, PART) if given.values.get(PART) is not None else (config, part_field)
    turned = source.number(field, default=part or 1.0)
    size = head_size if kind == "default" and part is None else int(head_size * turned)
    if size < 2 or size % 2 or size > head_size:
        raise source.wrong(field, f"of {turned} leaves {size} of {head_size} components to turn")
    usual = Rope(size, Frequencies(inverse_frequencies(theta, size)), interleaved)
    match kind:
        case "default" | "mrope":  # a text's positions are the same along all axes of mrope
            return usual
        case "linear":
            return _scaled(usual, given.positive("factor"))
        case "dynamic":
            return _dynamic(usual, theta, given, config)
        case "ntk":
            return _ntk(usual, theta, given)
        case "yarn":
            return _yarn(usual, theta, given, config)
        case "longrope" | "su":
            return _longrope(usual, theta, given, config)
        case "llama3":
            return _llama3(usual, given, config)
        case "proportional":
            return _proportional(usual, theta, head_size, given)
    known = "default, linear, dynamic, ntk, yarn, longrope, llama3, proportional"
    raise given.wrong("rope_type", f"is {kind!r}; known are {known}")


def _with(rope: Rope, inverse: Float32, scale: float = 1.0) -> Rope:
    return replace(rope, usual=Frequencies(tuple(inverse.astype(np.float32).tolist()), scale))


def _inverse(rope: Rope) -> Float32:
    return np.array(rope.usual.inverse, np.float32)


def _scaled(rope: Rope, factor: float) -> Rope:
    return _with(rope, _inverse(rope) / np.float32(factor))


def _dynamic(rope: Rope, theta: float, given: ModelConfig, config: ModelConfig) -> Rope:
    original = config.integer("max_position_embeddings")
    return replace(rope, long=DynamicNtk(theta, given.positive("factor"), original), original=original)


def _ntk(rope: Rope, theta: float, given: ModelConfig) -> Rope:
    """NTK scaling whatever the length, as in GTE's code: another base; or a factor that grows by pair."""
    factor = given.positive("factor")
    if factor < 1:
        raise given.wrong("factor", f"is {factor}, expected a number of at least 1")
    mixed = given.optional_number("mixed_b")
    if mixed is None:
        inverse = np.array(inverse_frequencies(theta * factor, rope.size), np.float32)
        return _with(rope, inverse / np.float32(factor ** (2 / rope.size)))
    pairs = rope.size // 2
    rate = np.float32(math.log(factor)) / np.float32(pairs**mixed)
    return _with(rope, _inverse(rope) / np.exp(rate * np.arange(1, pairs + 1, dtype=np.float32) ** np.float32(mixed)))


def _original(given: ModelConfig, config: ModelConfig) -> int:
    """How many positions the checkpoint was trained with before they were stretched."""
    name = "original_max_position_embeddings"
    own = config.integer(name, default=config.integer("max_position_embeddings", default=2048))
    return config.integer(name) if name in config.values else given.integer(name, default=own)


def _yarn(rope: Rope, theta: float, given: ModelConfig, config: ModelConfig) -> Rope:
    """YaRN (arXiv 2309.00071): slow pairs are interpolated, fast ones are not, a linear ramp lies between."""
    if theta == 1:
        raise given.wrong("rope_theta", "is 1, with which all pairs turn equally fast, and YaRN has none to tell apart")
    original = _original(given, config)
    factor = given.positive("factor", default=config.integer("max_position_embeddings", default=original) / original)

    def magnitude(scale: float = 1.0) -> float:
        return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0

    scales = given.optional_number("mscale"), given.optional_number("mscale_all_dim")
    attention = given.optional_number("attention_factor")
    if attention is None:
        attention = magnitude(scales[0]) / magnitude(scales[1]) if scales[0] and scales[1] else magnitude()

    def turns(count: float) -> float:
        """The component that turns so often over the original positions."""
        return rope.size * math.log(original / (count * 2 * math.pi)) / (2 * math.log(theta))

    low = turns(given.optional_number("beta_fast") or 32.0)
    high = turns(given.optional_number("beta_slow") or 1.0)
    if given.flag("truncate", default=True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.size - 1)
    ramp = (np.arange(rope.size // 2, dtype=np.float32) - np.float32(low)) / np.float32((high - low) or 0.001)
    kept = 1 - np.clip(ramp, 0, 1)
    plain = _inverse(rope)
    return _with(rope, plain / np.float32(factor) * (1 - kept) + plain * kept, attention)


def _longrope(rope: Rope, theta: float, given: ModelConfig, config: ModelConfig) -> Rope:
    """LongRoPE (arXiv 2402.13753): a factor per pair, one set for segments up to the original length, one beyond."""
    original = _original(given, config)
    factor = given.positive("factor", default=config.integer("max_position_embeddings") / original)
    attention = given.optional_number("attention_factor")
    if attention is None and factor > 1 and original == 1:
        raise given.wrong("original_max_position_embeddings", "is 1, expected more")
    if attention is None:
        attention = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    exponents = np.arange(0, rope.size, 2, dtype=np.float32) / np.float32(rope.size)
    powers = (np.float64(theta) ** exponents.astype(np.float64)).astype(np.float32)

    def frequencies(name: str) -> Frequencies:
        factors = np.array(given.numbers(name, rope.size // 2), np.float32)
        if factors.min() <= 0:
            raise given.wrong(name, f"has {factors.min()}, expected numbers above 0")
        return Frequencies(tuple((np.float32(1) / (factors * powers)).tolist()), attention)

    return replace(rope, usual=frequencies("short_factor"), long=frequencies("long_factor"), original=original)


def _llama3(rope: Rope, given: ModelConfig, config: ModelConfig) -> Rope:
    """Llama 3.1's: slow pairs are divided by the factor, fast ones are kept, those between are blended."""
    factor = np.float32(given.positive("factor"))
    low, high = (np.float32(given.positive(name)) for name in ("low_freq_factor", "high_freq_factor"))
    if low >= high:
        raise given.wrong("high_freq_factor", f"is {high}, expected more than 'low_freq_factor', {low}")
    original = np.float32(_original(given, config))
    plain = _inverse(rope)
    waves = np.float32(2 * math.pi) / plain
    smooth = (original / waves - low) / (high - low)
    blended = (1 - smooth) * plain / factor + smooth * plain
    slow, fast = waves > original / low, waves < original / high
    return _with(rope, np.where(slow, plain / factor, np.where(fast, plain, blended)))


def _proportional(rope: Rope, theta: float, head_size: int, given: ModelConfig) -> Rope:
    """All of the head in halves, of which only the first pairs turn, with frequencies over the whole head."""
    factor = np.float32(given.positive("factor", default=1.0))
    turning = rope.size // 2
    inverse = np.array(inverse_frequencies(theta, head_size), np.float32) / factor
    inverse[turning:] = 0
    return replace(_with(rope, inverse), size=head_size)
