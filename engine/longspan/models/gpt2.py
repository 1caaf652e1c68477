"""GPT-2: learned positions, layer norms before each block, matrices stored transposed."""

from __future__ import annotations

from ..program.instructions import Embed, Instruction, Linear, Mlp
from .blocks import Blocks, Sizes, joined
from .config import ModelConfig
from .family import Body, tile_buffer, transposed, weight
from .masks import sight


def gpt2(config: ModelConfig) -> Body:
    """The body of a `model_type: "gpt2"` checkpoint."""
    across, heads = config.spelling("n_embd", "hidden_size"), config.spelling("n_head", "num_attention_heads")
    if config.values.get("n_inner") is None:
        config = config.changed(n_inner=4 * config.integer(across))
    sizes = Sizes.of(config, width=across, heads=heads, inner="n_inner")
    width, inner = sizes.width, sizes.inner
    positions = config.integer(config.spelling("n_positions", "max_position_embeddings"), default=1024)
    activation = config.activation("activation_function", default="gelu_new")
    scale = sizes.head_size**-0.5 if config.flag("scale_attn_weights", default=True) else 1.0
    by_layer = config.flag("scale_attn_by_inverse_layer_idx", default=False)
    blocks = Blocks(sizes, config.number("layer_norm_epsilon", default=1e-5), norm_kind="layer")
    x, y = blocks.x, blocks.y

    def layer(index: int) -> tuple[Instruction, ...]:
        stage, at = index + 1, f"h.{index}"
        seen = sight(config, index)
        projection = transposed(f"{at}.attn.c_attn.weight", 3 * width, width)
        bias = weight(f"{at}.attn.c_attn.bias", 3 * width)
        return (
            blocks.norm(stage, f"{at}.ln_1", x, y, bias=True),
            *blocks.attention(stage, y, projection, bias, scale=scale / (stage if by_layer else 1), **seen),
            Linear(
                stage=stage,
                x=blocks.context,
                out=x,
                weight=transposed(f"{at}.attn.c_proj.weight", width, width),
                bias=weight(f"{at}.attn.c_proj.bias", width),
                residual=x,
            ),
            blocks.norm(stage, f"{at}.ln_2", x, y, bias=True),
            Mlp(
                stage=stage,
                x=y,
                out=x,
                hidden=tile_buffer("hidden", inner),
                up=transposed(f"{at}.mlp.c_fc.weight", inner, width),
                up_bias=weight(f"{at}.mlp.c_fc.bias", inner),
                down=transposed(f"{at}.mlp.c_proj.weight", width, inner),
                down_bias=weight(f"{at}.mlp.c_proj.bias", width),
                activation=activation,
                residual=x,
            ),
        )

    layers = config.integer(config.spelling("n_layer", "num_hidden_layers"))
    embed = Embed(
        stage=0,
        out=x,
        tokens=weight("wte.weight", config.integer("vocab_size"), width),
        positions=weight("wpe.weight", positions, width),
    )
    return Body(
        "gpt2",
        (embed, *joined(*map(layer, range(layers)))),
        x,
        max_positions=positions,
        ending=(blocks.norm(layers + 1, "ln_f", x, x, bias=True),),
        prefixes=("", "transformer."),
    )
