"""EuroBERT: Llama's layers with sight of both sides; and their form for relatives."""

from __future__ import annotations

from collections.abc import Sequence

from ..program.instructions import Embed, Instruction
from ..program.rope import Rope
from .blocks import Blocks, Sizes, joined
from .config import ModelConfig
from .family import Body, weight
from .masks import Sight, around
from .rope import read_rope


def eurobert(config: ModelConfig) -> Body:
    """`model_type: "eurobert"`."""
    rope = read_rope(config, Sizes.of(config).head_size)
    layers = config.integer("num_hidden_layers")
    return eurobert_like("eurobert", config, [(rope, around())] * layers, eps=1e-5)


def eurobert_like(
    name: str,
    config: ModelConfig,
    kinds: Sequence[tuple[Rope | None, Sight]],
    *,
    eps: float,
    prefixes: tuple[str, ...] = ("", "model."),
) -> Body:
    """A body with EuroBERT's fields and tensor names.

    Args:
        name: of the family.
        config: the checkpoint's.
        kinds: the positions of each layer, and what its tokens see.
        eps: of the norms, where the config has none.
        prefixes: what checkpoints put before all tensor names.
    """
    attention_bias = config.flag("attention_bias", default=False)
    mlp_bias = config.flag("mlp_bias", default=False)
    activation = config.activation("hidden_act", default="silu")
    blocks = Blocks(Sizes.of(config), config.number("rms_norm_eps", default=eps))
    x, y = blocks.x, blocks.y

    def layer(index: int) -> tuple[Instruction, ...]:
        stage, at = index + 1, f"layers.{index}"
        rope, sight = kinds[index]
        projection = blocks.projections(f"{at}.self_attn", ("q_proj", "k_proj", "v_proj"), attention_bias)
        names = ("gate_proj", "up_proj", "down_proj")
        return (
            blocks.norm(stage, f"{at}.input_layernorm", x, y),
            *blocks.attention(stage, y, *projection, turned={"rope": rope}, **sight),
            blocks.output(stage, f"{at}.self_attn.o_proj", x, bias=attention_bias, residual=x),
            blocks.norm(stage, f"{at}.post_attention_layernorm", x, y),
            blocks.mlp(stage, f"{at}.mlp", names, y, x, activation, bias=mlp_bias, residual=x),
        )

    tokens = weight("embed_tokens.weight", config.integer("vocab_size"), x.width)
    return Body(
        name,
        (Embed(stage=0, out=x, tokens=tokens), *joined(*map(layer, range(len(kinds))))),
        x,
        max_positions=config.integer("max_position_embeddings"),
        ending=(blocks.norm(len(kinds) + 1, "norm", x, x),),
        prefixes=prefixes,
    )
