"""The encoder of T5, mT5 and UMT5: RMS norms before each block, a relative position bias, unscaled scores."""

from __future__ import annotations

from typing import Any

from ..checkpoint.transformer import UNLIMITED
from ..program.instructions import Embed, Instruction, RelativeBias
from .blocks import Blocks, Sizes, joined
from .config import ModelConfig
from .family import Body, weight

GATED = "gated-"


def t5(config: ModelConfig) -> Body:
    """`model_type: "t5"`: the first layer's bias serves all layers."""
    return _body("t5", config, feed_forward="relu", bias_in_each_layer=False)


def mt5(config: ModelConfig) -> Body:
    """`model_type: "mt5"`: as T5."""
    return _body("mt5", config, feed_forward="gated-gelu", bias_in_each_layer=False)


def umt5(config: ModelConfig) -> Body:
    """`model_type: "umt5"`: each layer has a bias of its own."""
    return _body("umt5", config, feed_forward="gated-gelu", bias_in_each_layer=True)


def _body(name: str, config: ModelConfig, *, feed_forward: str, bias_in_each_layer: bool) -> Body:
    config.require("is_decoder", False)
    field = "feed_forward_proj"
    proj = config.text(field, default=feed_forward)
    gated = proj.startswith(GATED)
    config.require("is_gated_act", gated)
    # Alone among the names, "gated-gelu" means the tanh approximation.
    activation = "gelu_tanh" if proj == "gated-gelu" else config.activation(field, default=feed_forward, before=GATED)
    names = ("wi_0", "wi_1", "wo") if gated else ("wi", "wo")
    sizes = Sizes.of(
        config,
        width=config.spelling("d_model", "hidden_size"),
        heads=config.spelling("num_heads", "num_attention_heads"),
        inner="d_ff",
        head_size=config.spelling("d_kv", "head_dim"),
    )
    blocks = Blocks(sizes, config.number("layer_norm_epsilon", default=1e-6))
    x, y = blocks.x, blocks.y
    buckets, bias = _bias(config)

    def layer(index: int) -> tuple[Instruction, ...]:
        stage, at = index + 1, f"encoder.block.{index}"
        own = index if bias_in_each_layer else 0
        table = f"encoder.block.{own}.layer.0.SelfAttention.relative_attention_bias.weight"
        scores: dict[str, Any] = {"relative": bias, "relative_bias": weight(table, buckets, sizes.heads)}
        projection = blocks.projections(f"{at}.layer.0.SelfAttention", ("q", "k", "v"))
        return (
            blocks.norm(stage, f"{at}.layer.0.layer_norm", x, y),
            *blocks.attention(stage, y, *projection, scale=1.0, **scores),
            blocks.output(stage, f"{at}.layer.0.SelfAttention.o", x, residual=x),
            blocks.norm(stage, f"{at}.layer.1.layer_norm", x, y),
            blocks.mlp(stage, f"{at}.layer.1.DenseReluDense", names, y, x, activation, residual=x),
        )

    layers = config.integer(config.spelling("num_layers", "num_hidden_layers"))
    embed = Embed(stage=0, out=x, tokens=weight("shared.weight", config.integer("vocab_size"), sizes.width))
    return Body(
        name,
        (embed, *joined(*map(layer, range(layers)))),
        x,
        max_positions=UNLIMITED,
        ending=(blocks.norm(layers + 1, "encoder.final_layer_norm", x, x),),
        prefixes=("", "transformer."),
        renamed=(("shared.weight", "encoder.embed_tokens.weight"),),
    )


def _bias(config: ModelConfig) -> tuple[int, RelativeBias]:
    """The number of buckets, half of them for each side, of which half are exact; and which distances they hold."""
    buckets_field, distance_field = "relative_attention_num_buckets", "relative_attention_max_distance"
    buckets = config.integer(buckets_field, default=32)
    if buckets % 2 or buckets < 4:
        raise config.wrong(buckets_field, f"is {buckets}, expected an even number of at least 4")
    distance = config.integer(distance_field, default=128)
    if distance <= buckets // 4:
        raise config.wrong(distance_field, f"is {distance}, but {buckets} buckets hold distances up to {buckets // 4}")
    return buckets, RelativeBias(max_distance=distance, bidirectional=True)
