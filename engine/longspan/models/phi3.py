"""Phi-3 and Phi-4: Llama's layers, with the projections of a block in one tensor and LongRoPE."""

from __future__ import annotations

from ..program.instructions import Instruction
from .blocks import Blocks, Sizes
from .config import ModelConfig
from .decoder import decoder
from .family import Body
from .rope import read_rope

# What transformers assumes where a config is silent.
DEFAULTS = {"max_position_embeddings": 4096, "original_max_position_embeddings": 4096, "rms_norm_eps": 1e-5}


def phi3(config: ModelConfig) -> Body:
    """`model_type: "phi3"`: where there is a sliding window, all layers have it."""
    config = config.completed(DEFAULTS)
    for name in ("rope_parameters", "rope_scaling"):
        for field in ("rope_type", "type"):
            config.table(name).require(field, "default", "longrope", "su")
    activation = config.activation("hidden_act", default="silu")

    def feed_forward(blocks: Blocks, index: int) -> Instruction:
        names = ("gate_up_proj", "down_proj")
        return blocks.packed_mlp(
            index + 1,
            f"layers.{index}.mlp",
            names,
            blocks.y,
            blocks.x,
            activation,
            gate_first=True,
            residual=blocks.x,
        )

    return decoder(
        "phi3",
        config,
        ropes=(read_rope(config, Sizes.of(config).head_size, part=1.0),),
        windows=(config.optional_integer("sliding_window"),),
        packed_qkv="qkv_proj",
        feed_forward=feed_forward,
    )
