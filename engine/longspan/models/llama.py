"""Llama and its close relatives: RMS norms before each block, rotary positions, grouped heads, gated MLP."""

from __future__ import annotations

from ..program.instructions import Embed, HeadNorm, Instruction
from .blocks import Blocks, Sizes, joined
from .config import ModelConfig
from .family import Body, weight
from .masks import around, causal, is_causal
from .rope import read_rope

NAMES = ("q_proj", "k_proj", "v_proj")


def llama(config: ModelConfig) -> Body:
    """`model_type: "llama"`: projections have biases where `attention_bias` says so."""
    bias = config.flag("attention_bias", default=False)
    return _body("llama", config, qkv_bias=bias, output_bias=bias, mlp_bias=config.flag("mlp_bias", default=False))


def mistral(config: ModelConfig) -> Body:
    """`model_type: "mistral"`: without biases; where there is a sliding window, all layers have it."""
    return _body("mistral", config, windows=(config.optional_integer("sliding_window"),))


def qwen2(config: ModelConfig) -> Body:
    """`model_type: "qwen2"`: queries, keys and values have biases."""
    return _body("qwen2", config, qkv_bias=True, windows=qwen_windows(config))


def qwen3(config: ModelConfig) -> Body:
    """`model_type: "qwen3"`: queries and keys are normalised head by head."""
    bias = config.flag("attention_bias", default=False)
    return _body("qwen3", config, qkv_bias=bias, output_bias=bias, head_norms=True, windows=qwen_windows(config))


def qwen_windows(config: ModelConfig) -> tuple[int | None, ...]:
    """The sliding window of each layer: by `layer_types`, or of the layers from `max_window_layers` on."""
    layers = config.integer("num_hidden_layers")
    if not config.flag("use_sliding_window", default=False):
        return (None,) * layers
    window = config.optional_integer("sliding_window")
    if config.fields.get("layer_types") is not None:
        types = config.choices("layer_types", layers, ("full_attention", "sliding_attention"))
        return tuple(window if name == "sliding_attention" else None for name in types)
    first = config.integer("max_window_layers", default=layers)
    return tuple(window if layer >= first else None for layer in range(layers))


def _body(
    name: str,
    config: ModelConfig,
    *,
    qkv_bias: bool = False,
    output_bias: bool = False,
    mlp_bias: bool = False,
    head_norms: bool = False,
    windows: tuple[int | None, ...] = (None,),
) -> Body:
    sizes = Sizes.of(config)
    eps = config.number("rms_norm_eps", default=1e-6)
    activation = config.activation("hidden_act", default="silu")
    rope = read_rope(config, sizes.head_size)
    blocks = Blocks(sizes, eps)
    x, y = blocks.x, blocks.y
    one_sided = is_causal(config)

    def head_norm(at: str) -> dict[str, object]:
        if not head_norms:
            return {}
        weights = {f"{part}_norm": weight(f"{at}.{part}_norm.weight", sizes.head_size) for part in "qk"}
        return {"norm": HeadNorm(kind="rms", eps=eps), **weights}

    def layer(index: int) -> tuple[Instruction, ...]:
        stage, at = index + 1, f"layers.{index}"
        window = windows[index % len(windows)]
        sight = causal(window) if one_sided else around(window)
        projection = blocks.projections(f"{at}.self_attn", NAMES, qkv_bias)
        turned = {"rope": rope, **head_norm(f"{at}.self_attn")}
        return (
            blocks.norm(stage, f"{at}.input_layernorm", x, y),
            *blocks.attention(stage, y, *projection, turned=turned, **sight),
            blocks.output(stage, f"{at}.self_attn.o_proj", x, bias=output_bias, residual=x),
            blocks.norm(stage, f"{at}.post_attention_layernorm", x, y),
            blocks.mlp(
                stage,
                f"{at}.mlp",
                ("gate_proj", "up_proj", "down_proj"),
                y,
                x,
                activation,
                bias=mlp_bias,
                residual=x,
            ),
        )

    layers = config.integer("num_hidden_layers")
    embed = Embed(stage=0, out=x, tokens=weight("embed_tokens.weight", config.integer("vocab_size"), sizes.width))
    return Body(
        name,
        (embed, *joined(*map(layer, range(layers)))),
        x,
        max_positions=config.integer("max_position_embeddings"),
        ending=(blocks.norm(layers + 1, "norm", x, x),),
        prefixes=("", "model."),
    )
