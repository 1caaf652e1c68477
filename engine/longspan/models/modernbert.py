"""ModernBERT: norms before each block, gated MLP, rotary positions; most layers see a window and have a base of it."""

from __future__ import annotations

from ..program.instructions import Embed, Instruction
from .blocks import Blocks, Sizes, joined
from .config import ModelConfig
from .family import Body, weight
from .masks import FULL, SLIDING, around, layer_types
from .rope import read_rope

WINDOW = 128


def modernbert(config: ModelConfig) -> Body:
    """`model_type: "modernbert"`."""
    sizes = Sizes.of(config)
    every = config.integer("global_attn_every_n_layers", default=3)
    kinds = layer_types(config, every, full=0)
    sights = {FULL: around(), SLIDING: around(_radius(config))}
    thetas = {
        FULL: config.number("global_rope_theta", default=160_000.0),
        SLIDING: config.number("local_rope_theta", default=10_000.0),
    }
    ropes = {kind: read_rope(config, sizes.head_size, layer_type=kind, theta=thetas[kind]) for kind in thetas}
    attention_bias = config.flag("attention_bias", default=False)
    mlp_bias = config.flag("mlp_bias", default=False)
    norm_bias = config.flag("norm_bias", default=False)
    activation = config.activation("hidden_activation", default="gelu")
    blocks = Blocks(sizes, config.number("norm_eps", default=1e-5), norm_kind="layer")
    x, y = blocks.x, blocks.y

    def layer(index: int) -> tuple[Instruction, ...]:
        stage, at, kind = index + 1, f"layers.{index}", kinds[index]
        projection = blocks.packed_projections(f"{at}.attn.Wqkv", attention_bias)
        turned = {"rope": ropes[kind]}
        return (
            # The embedding is normalised already: the first layer has no norm before its attention.
            *([blocks.norm(stage, f"{at}.attn_norm", x, y, bias=norm_bias)] if index else []),
            *blocks.attention(stage, y if index else x, *projection, turned=turned, **sights[kind]),
            blocks.output(stage, f"{at}.attn.Wo", x, bias=attention_bias, residual=x),
            blocks.norm(stage, f"{at}.mlp_norm", x, y, bias=norm_bias),
            blocks.packed_mlp(
                stage, f"{at}.mlp", ("Wi", "Wo"), y, x, activation, gate_first=True, bias=mlp_bias, residual=x
            ),
        )

    tokens = weight("embeddings.tok_embeddings.weight", config.integer("vocab_size"), sizes.width)
    embedding = (
        Embed(stage=0, out=x, tokens=tokens),
        blocks.norm(0, "embeddings.norm", x, x, bias=norm_bias),
    )
    return Body(
        "modernbert",
        (*embedding, *joined(*map(layer, range(len(kinds))))),
        x,
        max_positions=config.integer("max_position_embeddings"),
        ending=(blocks.norm(len(kinds) + 1, "final_norm", x, x, bias=norm_bias),),
        prefixes=("", "model."),
    )


def _radius(config: ModelConfig) -> int:
    """How far sliding layers see to each side: half of `local_attention`, or `sliding_window`, which is that half."""
    half = config.optional_integer("sliding_window")
    window = config.integer("local_attention", default=WINDOW if half is None else 2 * half)
    if half is not None and window // 2 != half:
        raise config.wrong("sliding_window", f"is {half}, but half of 'local_attention' is {window // 2}")
    return window // 2
