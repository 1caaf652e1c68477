"""The decoder that most language models are: RMS norms before blocks, rotary positions, grouped heads, a gated MLP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..program.instructions import Activation, Embed, HeadNorm, Instruction
from ..program.rope import PositionScale, Rope
from .blocks import Blocks, Sizes, joined
from .config import ModelConfig
from .family import Body, weight
from .masks import Sight, sight
from .rope import read_rope

NAMES = ("q_proj", "k_proj", "v_proj")
GATED = ("gate_proj", "up_proj", "down_proj")

FeedForward = Callable[[Blocks, int], Instruction]
"""From the blocks and a layer's index to the instruction that turns y into x = mlp(y) + x."""


def decoder(
    name: str,
    config: ModelConfig,
    *,
    qkv_bias: bool = False,
    output_bias: bool = False,
    mlp_bias: bool = False,
    head_norms: bool = False,
    windows: Sequence[int | None] = (None,),
    sights: Sequence[Sight] | None = None,
    ropes: Sequence[Rope | None] | None = None,
    q_scale: PositionScale | None = None,
    packed_qkv: str | None = None,
    feed_forward: FeedForward | None = None,
    norm_offset: float = 0.0,
    embed_scale: float = 1.0,
    eps: float = 1e-6,
    prefixes: tuple[str, ...] = ("", "model."),
) -> Body:
    """A decoder with the names of Llama's tensors.

    Args:
        name: of the family.
        config: the checkpoint's.
        qkv_bias, output_bias, mlp_bias: which projections have biases.
        head_norms: whether queries and keys are normalised head by head.
        windows: of the layers, taken in turn; None sees all.
        sights: of the layers, taken in turn, where they are not what a causal family's config says.
        ropes: of the layers, taken in turn; by default all have what the config says.
        q_scale: of queries by their position.
        packed_qkv: the name of queries, keys and values, where they are one tensor.
        feed_forward: the second block, where it is not an MLP of three tensors.
        norm_offset: what is added to the norms' weights.
        embed_scale: of the embeddings.
        eps: of the norms, where the config has none.
        prefixes: what checkpoints put before all tensor names.
    """
    sizes = Sizes.of(config)
    blocks = Blocks(sizes, config.number("rms_norm_eps", default=eps), norm_offset=norm_offset)
    x, y = blocks.x, blocks.y
    ropes = (read_rope(config, sizes.head_size),) if ropes is None else ropes
    feed_forward = feed_forward or gated_mlp(config.activation("hidden_act", default="silu"), bias=mlp_bias)

    def layer(index: int) -> tuple[Instruction, ...]:
        stage, at = index + 1, f"layers.{index}"
        seen = sights[index % len(sights)] if sights else sight(config, index, windows[index % len(windows)])
        projection = blocks.projections(f"{at}.self_attn", NAMES, qkv_bias)
        if packed_qkv:
            projection = blocks.packed_projections(f"{at}.self_attn.{packed_qkv}", qkv_bias)
        turned: dict[str, Any] = {"rope": ropes[index % len(ropes)], "q_scale": q_scale}
        if head_norms:
            turned |= normalised_heads(blocks, f"{at}.self_attn")
        return (
            blocks.norm(stage, f"{at}.input_layernorm", x, y),
            *blocks.attention(stage, y, *projection, turned=turned, **seen),
            blocks.output(stage, f"{at}.self_attn.o_proj", x, bias=output_bias, residual=x),
            blocks.norm(stage, f"{at}.post_attention_layernorm", x, y),
            feed_forward(blocks, index),
        )

    layers = config.integer("num_hidden_layers")
    tokens = weight("embed_tokens.weight", config.integer("vocab_size"), sizes.width)
    return Body(
        name,
        (Embed(stage=0, out=x, tokens=tokens, scale=embed_scale), *joined(*map(layer, range(layers)))),
        x,
        max_positions=config.integer("max_position_embeddings"),
        ending=(blocks.norm(layers + 1, "norm", x, x),),
        prefixes=prefixes,
    )


def normalised_heads(blocks: Blocks, at: str) -> dict[str, Any]:
    """The fields of `Qkv` that normalise queries and keys head by head."""
    size = blocks.sizes.head_size
    return {
        "norm": HeadNorm(kind=blocks.norm_kind, eps=blocks.eps, weight_offset=blocks.norm_offset),
        **{f"{part}_norm": weight(f"{at}.{part}_norm.weight", size) for part in "qk"},
    }


def gated_mlp(activation: Activation, *, bias: bool = False) -> FeedForward:
    """x = mlp(y) + x with a gate."""

    def feed_forward(blocks: Blocks, index: int) -> Instruction:
        x, y = blocks.x, blocks.y
        return blocks.mlp(index + 1, f"layers.{index}.mlp", GATED, y, x, activation, bias=bias, residual=x)

    return feed_forward
