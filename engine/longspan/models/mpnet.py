"""MPNet: BERT's layers with a relative position bias that all layers share, besides learned positions."""

from __future__ import annotations

from typing import Any

from ..program.instructions import Embed, Instruction, RelativeBias
from ..program.operands import Layout, Weight
from .blocks import Blocks, Sizes, joined
from .config import ModelConfig
from .family import Body, weight

FIRST_POSITION = 2  # behind the padding's, whatever the config calls that
BUCKETS = 32  # that distances fall into; a larger table has unused rows
MAX_DISTANCE = 128


def mpnet(config: ModelConfig) -> Body:
    """`model_type: "mpnet"`."""
    sizes = Sizes.of(config)
    positions = config.integer("max_position_embeddings")
    if positions <= FIRST_POSITION:
        raise config.wrong("max_position_embeddings", f"is {positions}, but the first token has row {FIRST_POSITION}")
    activation = config.activation("hidden_act", default="gelu")
    blocks = Blocks(sizes, config.number("layer_norm_eps", default=1e-12), norm_kind="layer")
    x = blocks.x
    bias: dict[str, Any] = {
        "relative": RelativeBias(max_distance=MAX_DISTANCE, bidirectional=True),
        "relative_bias": _bias_table(config, sizes.heads),
    }

    def layer(index: int) -> tuple[Instruction, ...]:
        stage, at = index + 1, f"encoder.layer.{index}"
        projection = blocks.projections(f"{at}.attention.attn", ("q", "k", "v"), bias=True)
        return (
            *blocks.attention(stage, x, *projection, **bias),
            blocks.output(stage, f"{at}.attention.attn.o", x, bias=True, residual=x),
            blocks.norm(stage, f"{at}.attention.LayerNorm", x, x, bias=True),
            blocks.mlp(stage, at, ("intermediate.dense", "output.dense"), x, x, activation, bias=True, residual=x),
            blocks.norm(stage, f"{at}.output.LayerNorm", x, x, bias=True),
        )

    embed = Embed(
        stage=0,
        out=x,
        tokens=weight("embeddings.word_embeddings.weight", config.integer("vocab_size"), sizes.width),
        positions=weight("embeddings.position_embeddings.weight", positions, sizes.width),
        position_offset=FIRST_POSITION,
    )
    norm = blocks.norm(0, "embeddings.LayerNorm", x, x, bias=True)
    return Body(
        "mpnet",
        (embed, norm, *joined(*map(layer, range(config.integer("num_hidden_layers"))))),
        x,
        max_positions=positions - FIRST_POSITION,
        prefixes=("", "mpnet."),
        padding=FIRST_POSITION - 1,
    )


def _bias_table(config: ModelConfig, heads: int) -> Weight:
    rows = config.integer("relative_attention_num_buckets", default=BUCKETS)
    if rows < BUCKETS:
        raise config.wrong("relative_attention_num_buckets", f"is {rows}, expected at least {BUCKETS}")
    stored = Layout((rows, heads), last=BUCKETS)
    return Weight(("encoder.relative_attention_bias.weight",), (BUCKETS, heads), stored)
