"""BERT, and its form for relatives: learned positions, blocks that normalise after the residual, biases."""

from __future__ import annotations

from collections.abc import Sequence

from ..program.instructions import Embed, Instruction, Linear
from ..program.positions import PositionMap
from .blocks import Blocks, Sizes, joined
from .config import ModelConfig
from .family import Body, tokens_buffer, weight

QKV = ("query", "key", "value")
LONGEMBED, BEFORE = "longembed", 512
"""What the path that E5-Base-4k was made at holds, and how many positions it had before its table was stretched."""


def bert(config: ModelConfig) -> Body:
    """`model_type: "bert"`.

    E5-Base-4k (arXiv 2404.12096) has a table with eight rows for each position of E5-Base, in which texts of up to 512
    tokens take every eighth. Its config.json tells of it in `_name_or_path` only.
    """
    factor = config.integer("max_position_embeddings") // BEFORE
    stretched = factor > 1 and LONGEMBED in config.text("_name_or_path", default="")
    position_map = PositionMap("interpolated", BEFORE, factor) if stretched else None
    return bert_like("bert", config, prefixes=("", "bert."), position_map=position_map)


def bert_like(
    name: str,
    config: ModelConfig,
    *,
    prefixes: Sequence[str],
    first_position: int = 0,
    embedding_width: int | None = None,
    padding: int | None = None,
    position_map: PositionMap | None = None,
) -> Body:
    """A body with BERT's fields and tensor names.

    Args:
        name: of the family.
        config: the checkpoint's.
        prefixes: what checkpoints put before all tensor names.
        first_position: the row of the position table that belongs to a text's first token.
        embedding_width: of the tables, where their rows are projected to the width of the layers.
        padding: as in `Body`.
        position_map: which rows of the position table serve a text, where it is not one a position.
    """
    config.require("position_embedding_type", "absolute")
    config.require("is_decoder", False)
    sizes = Sizes.of(config)
    activation = config.activation("hidden_act", default="gelu")
    blocks = Blocks(sizes, config.number("layer_norm_eps", default=1e-12), norm_kind="layer")
    x = blocks.x

    def embedding() -> tuple[Instruction, ...]:
        width = embedding_width or sizes.width
        rows = x if width == sizes.width else tokens_buffer("embedded", width)
        embed = Embed(
            stage=0,
            out=rows,
            tokens=weight("embeddings.word_embeddings.weight", config.integer("vocab_size"), width),
            positions=weight("embeddings.position_embeddings.weight", positions, width),
            position_offset=first_position,
            position_map=position_map,
            types=weight("embeddings.token_type_embeddings.weight", types, width),
        )
        norm = blocks.norm(0, "embeddings.LayerNorm", rows, rows, bias=True)
        if rows == x:
            return embed, norm
        projection = weight("embeddings_project.weight", sizes.width, width)
        bias = weight("embeddings_project.bias", sizes.width)
        return embed, norm, Linear(stage=0, x=rows, out=x, weight=projection, bias=bias)

    def layer(index: int) -> tuple[Instruction, ...]:
        stage, at = index + 1, f"encoder.layer.{index}"
        return (
            *blocks.attention(stage, x, *blocks.projections(f"{at}.attention.self", QKV, bias=True)),
            blocks.output(stage, f"{at}.attention.output.dense", x, bias=True, residual=x),
            blocks.norm(stage, f"{at}.attention.output.LayerNorm", x, x, bias=True),
            blocks.mlp(stage, at, ("intermediate.dense", "output.dense"), x, x, activation, bias=True, residual=x),
            blocks.norm(stage, f"{at}.output.LayerNorm", x, x, bias=True),
        )

    types = config.integer("type_vocab_size", default=2)
    positions = config.integer("max_position_embeddings")
    if positions <= first_position:
        raise config.wrong("max_position_embeddings", f"is {positions}, but the first token has row {first_position}")
    return Body(
        name,
        (*embedding(), *joined(*map(layer, range(config.integer("num_hidden_layers"))))),
        x,
        max_positions=positions - first_position,
        prefixes=tuple(prefixes),
        padding=padding,
        renamed=(("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")),
    )
