"""DistilBERT: BERT's layers under other names, without token types."""

from __future__ import annotations

from ..program.instructions import Embed, Instruction
from .blocks import Blocks, Sizes, joined
from .config import ModelConfig
from .family import Body, weight

EPS = 1e-12  # not in the config


def distilbert(config: ModelConfig) -> Body:
    """`model_type: "distilbert"`."""
    sizes = Sizes.of(
        config,
        width=config.spelling("dim", "hidden_size"),
        heads=config.spelling("n_heads", "num_attention_heads"),
        inner="hidden_dim",
    )
    layers = config.integer(config.spelling("n_layers", "num_hidden_layers"))
    positions = config.integer("max_position_embeddings")
    activation = config.activation("activation", default="gelu")
    blocks = Blocks(sizes, EPS, norm_kind="layer")
    x = blocks.x

    def layer(index: int) -> tuple[Instruction, ...]:
        stage, at = index + 1, f"transformer.layer.{index}"
        projection = blocks.projections(f"{at}.attention", ("q_lin", "k_lin", "v_lin"), bias=True)
        return (
            *blocks.attention(stage, x, *projection),
            blocks.output(stage, f"{at}.attention.out_lin", x, bias=True, residual=x),
            blocks.norm(stage, f"{at}.sa_layer_norm", x, x, bias=True),
            blocks.mlp(stage, f"{at}.ffn", ("lin1", "lin2"), x, x, activation, bias=True, residual=x),
            blocks.norm(stage, f"{at}.output_layer_norm", x, x, bias=True),
        )

    embed = Embed(
        stage=0,
        out=x,
        tokens=weight("embeddings.word_embeddings.weight", config.integer("vocab_size"), sizes.width),
        positions=weight("embeddings.position_embeddings.weight", positions, sizes.width),
    )
    norm = blocks.norm(0, "embeddings.LayerNorm", x, x, bias=True)
    return Body(
        "distilbert",
        (embed, norm, *joined(*map(layer, range(layers)))),
        x,
        max_positions=positions,
        prefixes=("", "distilbert."),
        renamed=(("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")),
    )
