"""GTE: BERT with rotary positions and gated MLPs, whose original code calls itself "new"."""

from __future__ import annotations

from dataclasses import replace

from ..program.instructions import Instruction
from .blocks import Blocks, Sizes
from .config import ModelConfig
from .family import Body
from .rope import DEFAULT_THETA, read_rope
from .rotary_bert import NATIVE, Names, rotary_bert

NORMS = {"layer_norm": "layer", "rms_norm": "rms"}
ORIGINAL = Names(
    embedding_norm="embeddings.LayerNorm",
    layer="encoder.layer",
    qkv=("attention.qkv_proj",),
    output="attention.o_proj",
    attention_norm="attn_ln",
    mlp_norm="mlp_ln",
)


def new(config: ModelConfig) -> Body:
    """`model_type: "new"`: the original code's."""
    return _body(config, DEFAULT_THETA)


def gte(config: ModelConfig) -> Body:
    """`model_type: "gte"`: transformers'; some checkpoints have the original code's tensor names all the same."""
    return _body(config, 160_000.0)


def _original(config: ModelConfig) -> Names:
    packed = config.holds(f".{ORIGINAL.qkv[0]}.")
    return ORIGINAL if packed else replace(ORIGINAL, qkv=tuple(f"attention.{name}_proj" for name in "qkv"))


def _body(config: ModelConfig, theta: float) -> Body:
    config.require("position_embedding_type", "rope", "absolute")
    config.require("layer_norm_type", *NORMS)
    config.require("logn_attention_scale", False)
    sizes = Sizes.of(config)
    rms = config.text("layer_norm_type", default="layer_norm") == "rms_norm"
    blocks = Blocks(sizes, config.number("layer_norm_eps", default=1e-12), norm_kind="rms" if rms else "layer")
    activation = config.activation("hidden_act", default="gelu")
    packed = config.holds(".mlp.up_gate_proj.")
    positions = config.integer("max_position_embeddings")
    learned = config.text("position_embedding_type", default="rope") == "absolute"

    def mlp(stage: int, index: int, at: str) -> Instruction:
        x = blocks.x
        if packed:
            names = ("up_gate_proj", "down_proj")
            return blocks.packed_mlp(stage, at, names, x, x, activation, gate_first=False, down_bias=True, residual=x)
        return blocks.mlp(
            stage, at, ("gate_proj", "up_proj", "down_proj"), x, x, activation, down_bias=True, residual=x
        )

    return rotary_bert(
        "gte",
        blocks,
        _original(config) if packed else NATIVE,
        mlp,
        layers=config.integer("num_hidden_layers"),
        vocabulary=config.integer("vocab_size"),
        types=config.natural("type_vocab_size", default=1),
        rope=None if learned else read_rope(config, sizes.head_size, theta=theta),
        bias=True,
        max_positions=positions,
        prefixes=("", "new.", "gte."),
        learned_positions=positions if learned else 0,
    )
