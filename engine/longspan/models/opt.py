"""OPT: learned positions that start at 2, layer norms before or behind each block, narrower embeddings in one size."""

from __future__ import annotations

from ..program.instructions import Embed, Instruction, Linear, Norm
from ..program.operands import Buffer
from .blocks import Blocks, Sizes, joined
from .config import ModelConfig
from .family import Body, tokens_buffer, weight
from .masks import sight

NAMES = ("q_proj", "k_proj", "v_proj")
OFFSET = 2
"""The row of the first position."""


def opt(config: ModelConfig) -> Body:
    """The body of a `model_type: "opt"` checkpoint."""
    sizes = Sizes.of(config, inner="ffn_dim")
    width = sizes.width
    activation = config.activation("activation_function", default="relu")
    bias = config.flag("enable_bias", default=True)
    affine = config.flag("layer_norm_elementwise_affine", default=True)
    before = config.flag("do_layer_norm_before", default=True)
    blocks = Blocks(sizes, 1e-5, norm_kind="layer")
    x, y = blocks.x, blocks.y

    def norm(stage: int, name: str, x: Buffer, out: Buffer) -> Norm:
        return (
            blocks.norm(stage, name, x, out, bias=True) if affine else Norm(stage=stage, x=x, out=out, eps=blocks.eps)
        )

    def layer(index: int) -> tuple[Instruction, ...]:
        stage, at = index + 1, f"layers.{index}"
        first, second = f"{at}.self_attn_layer_norm", f"{at}.final_layer_norm"
        source = y if before else x
        projection = blocks.projections(f"{at}.self_attn", NAMES, bias)
        attention = blocks.attention(stage, source, *projection, **sight(config, index))
        output = blocks.output(stage, f"{at}.self_attn.out_proj", x, bias=bias, residual=x)
        mlp = blocks.mlp(stage, at, ("fc1", "fc2"), source, x, activation, bias=bias, residual=x)
        if before:
            return (norm(stage, first, x, y), *attention, output, norm(stage, second, x, y), mlp)
        return (*attention, output, norm(stage, first, x, x), mlp, norm(stage, second, x, x))

    layers = config.integer("num_hidden_layers")
    positions = config.integer("max_position_embeddings", default=2048)
    narrow = config.integer("word_embed_proj_dim", default=width)
    vectors = x if narrow == width else tokens_buffer("vectors", narrow)
    last = before and not config.flag("_remove_final_layer_norm", default=False)
    ending: tuple[Instruction, ...] = (norm(layers + 1, "final_layer_norm", x, x),) if last else ()
    if narrow != width:
        project = weight("project_out.weight", narrow, width)
        ending = (*ending, Linear(stage=layers + 1, x=x, out=vectors, weight=project))
    return Body(
        "opt",
        (*_embedding(config, positions, narrow, x), *joined(*map(layer, range(layers)))),
        vectors,
        max_positions=positions,
        ending=ending,
        prefixes=("decoder.", "model.decoder.", ""),
    )


def _embedding(config: ModelConfig, positions: int, narrow: int, x: Buffer) -> tuple[Instruction, ...]:
    """x = tokens + positions, where the tokens' embeddings may be projected from another width."""
    tokens = weight("embed_tokens.weight", config.integer("vocab_size"), narrow)
    table = weight("embed_positions.weight", positions + OFFSET, x.width)
    if narrow == x.width:
        return (Embed(stage=0, out=x, tokens=tokens, positions=table, position_offset=OFFSET),)
    words = tokens_buffer("words", narrow)
    return (
        Embed(stage=0, out=words, tokens=tokens),
        Embed(stage=0, out=x, positions=table, position_offset=OFFSET),
        Linear(stage=0, x=words, out=x, weight=weight("project_in.weight", x.width, narrow), residual=x),
    )
