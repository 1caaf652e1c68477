"""Jina v2: BERT with symmetric ALiBi instead of positions and with gated MLPs, in the forms of two repositories."""

from __future__ import annotations

from typing import Any

from ..program.instructions import Activation, Embed, HeadNorm, Instruction
from ..program.relative import alibi_slopes
from .bert import QKV
from .blocks import Blocks, Sizes, joined
from .config import ModelConfig
from .family import Body, weight

GATES: dict[str, Activation] = {"geglu": "gelu", "reglu": "relu"}


def jina_bert(config: ModelConfig) -> Body:
    """`model_type: "bert"` with `position_embedding_type: "alibi"`."""
    config.require("is_decoder", False)
    field = "feed_forward_type"
    config.require(field, *GATES)
    sizes = Sizes.of(config)
    blocks = Blocks(sizes, config.number("layer_norm_eps", default=1e-12), norm_kind="layer")
    activation = GATES[config.text(field, default="geglu")]
    slopes = alibi_slopes(sizes.heads)
    make = _code_layer if config.holds(".layer_norm_q.") else _text_layer
    x = blocks.x
    embed = Embed(
        stage=0,
        out=x,
        tokens=weight("embeddings.word_embeddings.weight", config.integer("vocab_size"), sizes.width),
        types=weight("embeddings.token_type_embeddings.weight", config.integer("type_vocab_size", default=2), x.width),
    )
    norm = blocks.norm(0, "embeddings.LayerNorm", x, x, bias=True)
    layers = [make(blocks, index, activation, slopes) for index in range(config.integer("num_hidden_layers"))]
    return Body(
        "jina_bert",
        (embed, norm, *joined(*layers)),
        x,
        max_positions=config.integer("max_position_embeddings"),
        prefixes=("", "bert."),
    )


def _text_layer(
    blocks: Blocks, index: int, activation: Activation, slopes: tuple[float, ...]
) -> tuple[Instruction, ...]:
    """Of the models for texts."""
    x, stage, at = blocks.x, index + 1, f"encoder.layer.{index}"
    projection = blocks.projections(f"{at}.attention.self", QKV, bias=True)
    return (
        *blocks.attention(stage, x, *projection, slopes=slopes),
        blocks.output(stage, f"{at}.attention.output.dense", x, bias=True, residual=x),
        blocks.norm(stage, f"{at}.attention.output.LayerNorm", x, x, bias=True),
        blocks.packed_mlp(
            stage, f"{at}.mlp", ("gated_layers", "wo"), x, x, activation, gate_first=True, down_bias=True, residual=x
        ),
        blocks.norm(stage, f"{at}.mlp.layernorm", x, x, bias=True),
    )


def _code_layer(
    blocks: Blocks, index: int, activation: Activation, slopes: tuple[float, ...]
) -> tuple[Instruction, ...]:
    """Of the models for code: queries and keys are normalised, and two norms follow attention, each with a residual."""
    x, y, stage, at = blocks.x, blocks.y, index + 1, f"encoder.layer.{index}"
    attention = f"{at}.attention.self"
    turned: dict[str, Any] = {"norm": HeadNorm(kind="layer", eps=blocks.eps, whole=True)}
    for part in "qk":
        turned[f"{part}_norm"] = weight(f"{attention}.layer_norm_{part}.weight", x.width)
        turned[f"{part}_norm_bias"] = weight(f"{attention}.layer_norm_{part}.bias", x.width)
    projection = blocks.projections(attention, QKV, bias=True)
    return (
        *blocks.attention(stage, x, *projection, turned=turned, slopes=slopes),
        blocks.output(stage, f"{at}.attention.output.dense", y, bias=True, residual=x),
        blocks.norm(stage, f"{at}.attention.output.LayerNorm", y, y, bias=True, residual=x),
        blocks.norm(stage, f"{at}.layer_norm_1", y, x, bias=True),
        blocks.packed_mlp(
            stage,
            f"{at}.mlp",
            ("up_gated_layer", "down_layer"),
            x,
            x,
            activation,
            gate_first=False,
            down_bias=True,
            residual=x,
        ),
        blocks.norm(stage, f"{at}.layer_norm_2", x, x, bias=True),
    )
