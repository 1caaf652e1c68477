"""OLMo 2: blocks are normalised behind, before the residual; queries and keys over all heads together."""

from __future__ import annotations

from ..program.instructions import Embed, HeadNorm, Instruction
from .blocks import Blocks, Sizes, joined
from .config import ModelConfig
from .decoder import GATED, NAMES
from .family import Body, weight
from .masks import sight
from .rope import read_rope


def olmo2(config: ModelConfig) -> Body:
    """The body of a `model_type: "olmo2"` checkpoint."""
    config = config.completed({"max_position_embeddings": 2048})
    sizes = Sizes.of(config)
    eps = config.number("rms_norm_eps", default=1e-5)
    bias = config.flag("attention_bias", default=False)
    activation = config.activation("hidden_act", default="silu")
    rope = read_rope(config, sizes.head_size)
    blocks = Blocks(sizes, eps)
    x, y = blocks.x, blocks.y

    def layer(index: int) -> tuple[Instruction, ...]:
        stage, at = index + 1, f"layers.{index}"
        seen = sight(config, index)
        turned = {
            "norm": HeadNorm(kind="rms", eps=eps, whole=True),
            "q_norm": weight(f"{at}.self_attn.q_norm.weight", sizes.queries),
            "k_norm": weight(f"{at}.self_attn.k_norm.weight", sizes.keys),
            "rope": rope,
        }
        return (
            *blocks.attention(stage, x, *blocks.projections(f"{at}.self_attn", NAMES, bias), turned=turned, **seen),
            blocks.output(stage, f"{at}.self_attn.o_proj", y, bias=bias),
            blocks.norm(stage, f"{at}.post_attention_layernorm", y, x, residual=x),
            blocks.mlp(stage, f"{at}.mlp", GATED, x, y, activation),
            blocks.norm(stage, f"{at}.post_feedforward_layernorm", y, x, residual=x),
        )

    layers = config.integer("num_hidden_layers")
    embed = Embed(stage=0, out=x, tokens=weight("embed_tokens.weight", config.integer("vocab_size"), sizes.width))
    return Body(
        "olmo2",
        (embed, *joined(*map(layer, range(layers)))),
        x,
        max_positions=config.integer("max_position_embeddings"),
        ending=(blocks.norm(layers + 1, "norm", x, x),),
        prefixes=("", "model."),
    )
