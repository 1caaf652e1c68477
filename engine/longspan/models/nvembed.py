"""NV-Embed: Mistral with sight of both sides, then attention over constant latents and a gated MLP for every token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..program.instructions import Instruction, LatentAttention, Norm
from ..program.operands import Weight
from .blocks import Blocks, Sizes
from .config import ModelConfig
from .decoder import decoder
from .family import Body, beneath, rows_of, tile_buffer, weight

# What the checkpoints' own code assumes where a config is silent.
TEXT: Mapping[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
}
LATENT = {
    "num_latents_value": 512,
    "num_cross_heads": 8,
    "latent_dim": 4096,
    "hidden_dim": 4096,
    "cross_dim_head": 4096,
}
EPS = 1e-5  # of the head's norms


def nvembed(config: ModelConfig) -> Body:
    """`model_type: "nvembed"`; its code gives no window to any layer, whatever the text's config says."""
    text = config.table("text_config").completed(TEXT)
    body = decoder("nvembed", text.changed(is_causal=False))
    head = _head(config.table("latent_attention_config").completed(LATENT), Sizes.of(text))
    backbone = beneath(body, "embedding_model")
    return replace(backbone, prefixes=("",), ending=(*backbone.ending, *head))


def _head(config: ModelConfig, text: Sizes) -> tuple[Instruction, ...]:
    """The steps after the last layer, where x holds the token vectors of the text model."""
    width, heads = text.width, config.integer("num_cross_heads")
    for name in ("latent_dim", "hidden_dim"):
        if config.integer(name) != width:
            raise config.wrong(name, f"is {config.integer(name)}, but the text model is {width} wide")
    count, queries = config.integer("num_latents_value"), heads * config.integer("cross_dim_head")
    blocks = Blocks(replace(text, inner=4 * width), EPS, norm_kind="layer")
    x, y = blocks.x, blocks.y
    at = "latent_attention_model.cross_attend_blocks"
    attend, feed = f"{at}.0", f"{at}.1"

    def half(first: int) -> Weight:
        return rows_of(f"{attend}.fn.to_kv.weight", (2 * queries, width), first, first + queries)

    attention = LatentAttention(
        stage=0,
        x=y,
        out=x,
        scores=tile_buffer("scores", heads * count),
        query=weight(f"{attend}.fn.to_q.weight", queries, width),
        latents=weight("latent_attention_model.latents", count, width),
        norm=weight(f"{attend}.norm_context.weight", width),
        norm_bias=weight(f"{attend}.norm_context.bias", width),
        eps=EPS,
        keys=half(0),
        values=half(queries),
        output=weight(f"{attend}.fn.to_out.weight", width, queries),
        heads=heads,
        scale=config.integer("cross_dim_head") ** -0.5,
        residual=x,
    )
    mlp = blocks.packed_mlp(0, f"{feed}.fn", ("net.0", "net.2"), y, x, "gelu", gate_first=False, bias=True, residual=x)

    def norm(name: str) -> Norm:
        return blocks.norm(0, f"{name}.norm", x, y, bias=True)

    return norm(attend), attention, norm(feed), replace(mlp, hidden=tile_buffer("head_hidden", 4 * width))
