"""BERT: learned positions, blocks that normalise after the residual, biases everywhere."""

from __future__ import annotations

from ..program.instructions import Attention, Embed, Instruction, Linear, Mlp, Norm, Qkv
from .config import ModelConfig
from .family import Body, stacked, tile_buffer, tokens_buffer, weight


def bert(config: ModelConfig) -> Body:
    """The body of a `model_type: "bert"` checkpoint."""
    config.require("position_embedding_type", "absolute")
    config.require("is_decoder", False)
    width = config.integer("hidden_size")
    heads = config.integer("num_attention_heads")
    inner = config.integer("intermediate_size")
    positions = config.integer("max_position_embeddings")
    types = config.integer("type_vocab_size", default=2)
    eps = config.number("layer_norm_eps", default=1e-12)
    activation = config.activation("hidden_act", default="gelu")
    head_size = config.head_size(width, heads)

    x = tokens_buffer("x", width)
    q, k, v = (tokens_buffer(name, width) for name in ("q", "k", "v"))
    context = tokens_buffer("context", width)
    hidden = tile_buffer("hidden", inner)

    def norm(stage: int, name: str) -> Norm:
        scale, shift = weight(f"{name}.weight", width), weight(f"{name}.bias", width)
        return Norm(stage=stage, x=x, out=x, weight=scale, bias=shift, eps=eps)

    def layer(stage: int, at: str) -> tuple[Instruction, ...]:
        projections = [f"{at}.attention.self.{name}" for name in ("query", "key", "value")]
        return (
            Qkv(
                stage=stage,
                x=x,
                q=q,
                k=k,
                v=v,
                weight=stacked([f"{name}.weight" for name in projections], (width, width)),
                bias=stacked([f"{name}.bias" for name in projections], (width,)),
                heads=heads,
                kv_heads=heads,
                head_size=head_size,
            ),
            Attention(
                stage=stage,
                q=q,
                k=k,
                v=v,
                out=context,
                heads=heads,
                kv_heads=heads,
                head_size=head_size,
                scale=head_size**-0.5,
            ),
            Linear(
                stage=stage,
                x=context,
                out=x,
                weight=weight(f"{at}.attention.output.dense.weight", width, width),
                bias=weight(f"{at}.attention.output.dense.bias", width),
                residual=x,
            ),
            norm(stage, f"{at}.attention.output.LayerNorm"),
            Mlp(
                stage=stage,
                x=x,
                out=x,
                hidden=hidden,
                up=weight(f"{at}.intermediate.dense.weight", inner, width),
                up_bias=weight(f"{at}.intermediate.dense.bias", inner),
                down=weight(f"{at}.output.dense.weight", width, inner),
                down_bias=weight(f"{at}.output.dense.bias", width),
                activation=activation,
                residual=x,
            ),
            norm(stage, f"{at}.output.LayerNorm"),
        )

    embed = Embed(
        stage=0,
        out=x,
        tokens=weight("embeddings.word_embeddings.weight", config.integer("vocab_size"), width),
        positions=weight("embeddings.position_embeddings.weight", positions, width),
        types=weight("embeddings.token_type_embeddings.weight", types, width),
    )
    layers = [layer(i + 1, f"encoder.layer.{i}") for i in range(config.integer("num_hidden_layers"))]
    instructions = (embed, norm(0, "embeddings.LayerNorm"), *(step for block in layers for step in block))
    renamed = (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"))
    return Body("bert", instructions, x, max_positions=positions, prefixes=("", "bert."), renamed=renamed)
