"""EmbeddingGemma 2, text alone: both sides, wider heads in layers that see all, the words again in every layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..program.instructions import Embed, Instruction, Linear, Norm
from ..program.operands import Buffer
from .blocks import Blocks, Sizes, joined
from .config import ModelConfig
from .decoder import GATED, NAMES, normalised_heads
from .family import TEXT_PREFIXES, Body, rows_of, tokens_buffer, weight
from .masks import FULL, SLIDING, around, layer_types
from .rope import read_rope

# What transformers assumes where a config is silent.
DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 262144,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 24,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 256,
    "max_position_embeddings": 262144,
    "sliding_window": 512,
    "hidden_size_per_layer_input": 512,
    "embedding_dim": 768,
}
THETA = {FULL: 1e6, SLIDING: 1e4}


def embedding_gemma2(config: ModelConfig) -> Body:
    """`model_type: "embedding_gemma2"`: the text model of one that sees images and hears sounds too."""
    body = embedding_gemma2_text(config.table("text_config"))
    return replace(body, name="embedding_gemma2", prefixes=TEXT_PREFIXES)


def embedding_gemma2_text(config: ModelConfig) -> Body:
    """The body of a `model_type: "embedding_gemma2_text"` checkpoint; its vectors are as wide as `embedding_dim`."""
    config = config.completed(DEFAULTS)
    types = layer_types(config, config.integer("sliding_window_pattern", default=6))
    types = (*types[:-1], FULL)  # as transformers does, whatever the config says
    sizes = _sizes_by_layer(config, types)
    width = sizes[0].width
    blocks = Blocks(sizes[0], config.number("rms_norm_eps", default=1e-6))
    x = blocks.x
    words, vectors = tokens_buffer("words", width), tokens_buffer("vectors", config.integer("embedding_dim"))
    tokens = weight("embed_tokens.weight", config.integer("vocab_size"), width)
    layers = (
        _layer(config, index, kind, size, words) for index, (kind, size) in enumerate(zip(types, sizes, strict=True))
    )
    last = len(types) + 1
    project = weight("embedding_projection.weight", vectors.width, width)
    return Body(
        "embedding_gemma2_text",
        (*(Embed(stage=0, out=out, tokens=tokens, scale=width**0.5) for out in (words, x)), *joined(*layers)),
        vectors,
        max_positions=config.integer("max_position_embeddings"),
        ending=(blocks.norm(last, "norm", x, x), Linear(stage=last, x=x, out=vectors, weight=project)),
        prefixes=("", "model."),
    )


def _layer(config: ModelConfig, index: int, kind: str, sizes: Sizes, words: Buffer) -> tuple[Instruction, ...]:
    blocks = Blocks(sizes, config.number("rms_norm_eps", default=1e-6))
    x, y = blocks.x, blocks.y
    stage, at = index + 1, f"layers.{index}"
    bias = config.flag("attention_bias", default=False)
    activation = config.activation("hidden_activation", default="gelu_pytorch_tanh")
    heads = normalised_heads(blocks, f"{at}.self_attn")
    heads["norm"] = replace(heads["norm"], values=True)
    rope = read_rope(config, sizes.head_size, layer_type=kind, theta=THETA[kind])
    seen = around(config.integer("sliding_window") if kind == SLIDING else None)
    projection = blocks.projections(f"{at}.self_attn", NAMES, bias)
    return (
        blocks.norm(stage, f"{at}.input_layernorm", x, y),
        *blocks.attention(stage, y, *projection, scale=1.0, turned={**heads, "rope": rope}, **seen),
        blocks.output(stage, f"{at}.self_attn.o_proj", y, bias=bias),
        blocks.norm(stage, f"{at}.post_attention_layernorm", y, x, residual=x),
        blocks.norm(stage, f"{at}.pre_feedforward_layernorm", x, y),
        blocks.mlp(stage, f"{at}.mlp", GATED, y, y, activation),
        blocks.norm(stage, f"{at}.post_feedforward_layernorm", y, x, residual=x),
        *_words_again(config, index, blocks, words),
    )


def _words_again(config: ModelConfig, index: int, blocks: Blocks, words: Buffer) -> tuple[Instruction, ...]:
    """x = (x + norm(W (gate(x) * norm(P words)))) * scalar, with P this layer's rows of a projection for all layers."""
    x, y, width = blocks.x, blocks.y, words.width
    stage, at = index + 1, f"layers.{index}.ple_block"
    narrow = config.integer("hidden_size_per_layer_input")
    layers = config.integer("num_hidden_layers")
    words_here, gated = tokens_buffer("words_here", narrow), tokens_buffer("gated", narrow)
    stored = (layers * narrow, width)
    own = rows_of("ple.per_layer_model_projection.weight", stored, index * narrow, (index + 1) * narrow)
    # What is normalised is scaled by width ** -0.5 before, which is the same as another eps.
    norm = Norm(
        stage=stage,
        x=words_here,
        out=words_here,
        kind="rms",
        weight=weight("ple.per_layer_projection_norm.weight", narrow),
        eps=blocks.eps * width,
    )
    gate = Linear(
        stage=stage,
        x=x,
        out=gated,
        weight=weight(f"{at}.per_layer_input_gate.weight", narrow, width),
        activation=config.activation("hidden_activation", default="gelu_pytorch_tanh"),
        factor=words_here,
    )
    back = Linear(stage=stage, x=gated, out=y, weight=weight(f"{at}.per_layer_projection.weight", width, narrow))
    added = blocks.norm(stage, f"{at}.post_per_layer_input_norm", y, x, residual=x)
    scalar = weight(f"layers.{index}.layer_scalar", 1)
    return (Linear(stage=stage, x=words, out=words_here, weight=own), norm, gate, back, replace(added, scale=scalar))


def _sizes_by_layer(config: ModelConfig, types: tuple[str, ...]) -> tuple[Sizes, ...]:
    """By `per_layer_config`, or else layers that see all have `global_head_dim` and `num_global_key_value_heads`."""
    wide = {
        "head_dim": config.integer("global_head_dim", default=512),
        "num_key_value_heads": config.integer("num_global_key_value_heads", default=1),
    }
    derived = {str(index): wide for index, kind in enumerate(types) if kind == FULL}
    given = config.completed({"per_layer_config": derived}).table("per_layer_config")
    for name in given.values:
        if name not in map(str, range(len(types))):
            raise given.wrong(name, f"is no layer of {len(types)}")
        for field in given.table(name).values:
            if field not in wide:
                raise given.table(name).wrong(field, f"is not supported; layers may differ in {' and '.join(wide)}")

    def sizes(layer: ModelConfig) -> Sizes:
        return Sizes.of(replace(layer if layer.values else config, values={**config.values, **layer.values}))

    return tuple(sizes(given.table(str(index))) for index in range(len(types)))
