"""Phi-3 and Phi-4: Llama's layers, with the projections of a block in one tensor and LongRoPE."""

from __future__ import annotations

from ..program.instructions import Instruction, Mlp, Weight
from .blocks import Blocks, Sizes
from .config import ModelConfig
from .decoder import decoder
from .family import Body, rows_of, tile_buffer, weight
from .rope import read_rope

# What transformers assumes where a config is silent.
DEFAULTS = {"max_position_embeddings": 4096, "original_max_position_embeddings": 4096, "rms_norm_eps": 1e-5}


def phi3(config: ModelConfig) -> Body:
    """`model_type: "phi3"`: where there is a sliding window, all layers have it."""
    config = config.completed(DEFAULTS)
    for name in ("rope_parameters", "rope_scaling"):
        for field in ("rope_type", "type"):
            config.table(name).require(field, "default", "longrope", "su")
    sizes = Sizes.of(config)
    activation = config.activation("hidden_act", default="silu")
    rows = sizes.queries + 2 * sizes.keys

    def projection(index: int) -> Weight:
        return weight(f"layers.{index}.self_attn.qkv_proj.weight", rows, sizes.width)

    def feed_forward(blocks: Blocks, index: int) -> Instruction:
        at, inner, width = f"layers.{index}.mlp", sizes.inner, sizes.width
        both = f"{at}.gate_up_proj.weight", (2 * inner, width)
        return Mlp(
            stage=index + 1,
            x=blocks.y,
            out=blocks.x,
            hidden=tile_buffer("hidden", inner),
            gate=rows_of(*both, 0, inner),
            up=rows_of(*both, inner, 2 * inner),
            down=weight(f"{at}.down_proj.weight", width, inner),
            activation=activation,
            residual=blocks.x,
        )

    return decoder(
        "phi3",
        config,
        ropes=(read_rope(config, sizes.head_size, part=1.0),),
        windows=(config.optional_integer("sliding_window"),),
        projection=projection,
        feed_forward=feed_forward,
    )
