"""GPT-NeoX and Pythia: both blocks of a layer read the same rows, and only a part of each head is turned."""

from __future__ import annotations

from ..program.instructions import Embed, Instruction
from ..program.operands import Layout, Weight
from .blocks import Blocks, Sizes, joined
from .config import ModelConfig
from .family import Body, weight
from .masks import sight
from .rope import read_rope


def gpt_neox(config: ModelConfig) -> Body:
    """The body of a `model_type: "gpt_neox"` checkpoint."""
    config = config.completed({"max_position_embeddings": 2048})
    sizes = Sizes.of(config)
    width, heads, size = sizes.width, sizes.heads, sizes.head_size
    rope = read_rope(config, size, theta_field="rotary_emb_base", part=0.25, part_field="rotary_pct")
    bias = config.flag("attention_bias", default=True)
    parallel = config.flag("use_parallel_residual", default=True)
    activation = config.activation("hidden_act", default="gelu")
    blocks = Blocks(sizes, config.number("layer_norm_eps", default=1e-5), norm_kind="layer")
    x, y = blocks.x, blocks.y

    def layer(index: int) -> tuple[Instruction, ...]:
        stage, at = index + 1, f"layers.{index}"
        seen = sight(config, index)
        before = blocks.norm(stage, f"{at}.input_layernorm", x, y, bias=True)
        qkv = f"{at}.attention.query_key_value"
        biases = _by_kind(f"{qkv}.bias", heads, size) if bias else None
        attention = blocks.attention(
            stage,
            y,
            _by_kind(f"{qkv}.weight", heads, size, width),
            biases,
            turned={"rope": rope},
            **seen,
        )
        output = blocks.output(stage, f"{at}.attention.dense", x, bias=bias, residual=x)
        between = blocks.norm(stage, f"{at}.post_attention_layernorm", x, y, bias=True)
        names = ("dense_h_to_4h", "dense_4h_to_h")
        mlp = blocks.mlp(stage, f"{at}.mlp", names, y, x, activation, bias=True, residual=x)
        if parallel:  # the second norm reads what the first one read
            return (before, *attention, between, output, mlp)
        return (before, *attention, output, between, mlp)

    layers = config.integer("num_hidden_layers")
    return Body(
        "gpt_neox",
        (
            Embed(stage=0, out=x, tokens=weight("embed_in.weight", config.integer("vocab_size"), width)),
            *joined(*map(layer, range(layers))),
        ),
        x,
        max_positions=config.integer("max_position_embeddings"),
        ending=(blocks.norm(layers + 1, "final_layer_norm", x, x, bias=True),),
        prefixes=("", "gpt_neox."),
    )


def _by_kind(name: str, heads: int, size: int, *columns: int) -> Weight:
    """Queries, keys and values of all heads; in the file those of one head lie together."""
    kept = len(columns)
    axes = (1, 0, 2, 3)[: 3 + kept]
    shape = (3 * heads * size, *columns)
    return Weight((name,), shape, Layout(shape, (heads, 3, size, *columns), axes, kept=kept))
