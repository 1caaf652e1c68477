"""Gemma 1 to 3: scaled embeddings, norms whose weights are distances from 1; from 2 on blocks are normalised twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..program.instructions import Embed, Instruction
from ..program.rope import Rope
from .blocks import Blocks, Sizes, joined
from .config import ModelConfig
from .decoder import GATED, NAMES, decoder, gated_mlp, normalised_heads
from .family import TEXT_PREFIXES, Body, weight
from .masks import FULL, SLIDING, Sight, around, causal, is_causal, layer_types
from .rope import read_rope

# What transformers assumes where a config is silent; published configs of Gemma 3 hold little but what differs.
GEMMA = {"head_dim": 256, "max_position_embeddings": 8192}
GEMMA2 = {**GEMMA, "num_key_value_heads": 4, "sliding_window": 4096, "attn_logit_softcapping": 50.0}
GEMMA3: Mapping[str, Any] = {
    "vocab_size": 262208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "max_position_embeddings": 131072,
    "sliding_window": 4096,
}


def gemma(config: ModelConfig) -> Body:
    """`model_type: "gemma"`: Llama's layers; the first configs say "gelu" and mean its tanh approximation."""
    config = config.completed(GEMMA)
    activation = config.activation("hidden_act", default="gelu_pytorch_tanh")
    bias = config.flag("attention_bias", default=False)
    return decoder(
        "gemma",
        config,
        qkv_bias=bias,
        output_bias=bias,
        feed_forward=gated_mlp("gelu_tanh" if activation == "gelu" else activation),
        norm_offset=1.0,
        embed_scale=config.integer("hidden_size") ** 0.5,
    )


def gemma2(config: ModelConfig) -> Body:
    """`model_type: "gemma2"`: capped scores, every second layer sees all."""
    config = config.completed(GEMMA2)
    # In transformers its eager attention, the usual one here, takes no notice of it, and others do.
    config.require("use_bidirectional_attention", False)
    one_sided = is_causal(config)
    window = config.integer("sliding_window")
    sights = {FULL: causal(), SLIDING: causal(window)} if one_sided else {FULL: around(), SLIDING: around(window)}
    rope = read_rope(config, Sizes.of(config).head_size)
    return _body("gemma2", config, layer_types(config, 2), sights, dict.fromkeys((FULL, SLIDING), rope))


def gemma3_text(config: ModelConfig) -> Body:
    """`model_type: "gemma3_text"`, EmbeddingGemma among them: head norms, and positions by the type of a layer."""
    config = config.completed(GEMMA3)
    window = config.integer("sliding_window")
    sights = {FULL: causal(), SLIDING: causal(window)}
    if not is_causal(config):
        radius = window
        if config.flag("use_bidirectional_attention", default=False):  # the window is that of both sides together
            radius = window // 2 + (not config.flag("is_causal", default=True))
        sights = {FULL: around(), SLIDING: around(radius)}
    size = Sizes.of(config).head_size
    ropes = {
        FULL: read_rope(config, size, layer_type=FULL, theta=1e6),
        SLIDING: read_rope(config, size, layer_type=SLIDING, theta_field="rope_local_base_freq", stretched=False),
    }
    types = layer_types(config, config.integer("sliding_window_pattern", default=6))
    return _body("gemma3_text", config, types, sights, ropes, head_norms=True)


def gemma3(config: ModelConfig) -> Body:
    """`model_type: "gemma3"`: the text model of one that sees images too."""
    return replace(gemma3_text(config.table("text_config")), name="gemma3", prefixes=TEXT_PREFIXES)


def _body(
    name: str,
    config: ModelConfig,
    types: tuple[str, ...],
    sights: Mapping[str, Sight],
    ropes: Mapping[str, Rope | None],
    *,
    head_norms: bool = False,
) -> Body:
    sizes = Sizes.of(config)
    blocks = Blocks(sizes, config.number("rms_norm_eps", default=1e-6), norm_offset=1.0)
    x, y = blocks.x, blocks.y
    bias = config.flag("attention_bias", default=False)
    activation = config.activation("hidden_activation", default="gelu_pytorch_tanh")
    scores: dict[str, Any] = {"scale": config.positive("query_pre_attn_scalar", default=256.0) ** -0.5}
    if not head_norms:
        scores["soft_cap"] = config.optional_number("attn_logit_softcapping")

    def layer(index: int) -> tuple[Instruction, ...]:
        stage, at, kind = index + 1, f"layers.{index}", types[index]
        projection = blocks.projections(f"{at}.self_attn", NAMES, bias)
        turned = {"rope": ropes[kind], **(normalised_heads(blocks, f"{at}.self_attn") if head_norms else {})}
        return (
            blocks.norm(stage, f"{at}.input_layernorm", x, y),
            *blocks.attention(stage, y, *projection, turned=turned, **scores, **sights[kind]),
            blocks.output(stage, f"{at}.self_attn.o_proj", y, bias=bias),
            blocks.norm(stage, f"{at}.post_attention_layernorm", y, x, residual=x),
            blocks.norm(stage, f"{at}.pre_feedforward_layernorm", x, y),
            blocks.mlp(stage, f"{at}.mlp", GATED, y, y, activation),
            blocks.norm(stage, f"{at}.post_feedforward_layernorm", y, x, residual=x),
        )

    tokens = weight("embed_tokens.weight", config.integer("vocab_size"), sizes.width)
    embed = Embed(stage=0, out=x, tokens=tokens, scale=sizes.width**0.5)
    return Body(
        name,
        (embed, *joined(*map(layer, range(len(types))))),
        x,
        max_positions=config.integer("max_position_embeddings"),
        ending=(blocks.norm(len(types) + 1, "norm", x, x),),
        prefixes=("", "model."),
    )
