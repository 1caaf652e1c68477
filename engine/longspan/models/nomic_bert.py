"""NomicBERT: rotary positions and gated MLPs, or (v2) plain ones of which every second is a mixture of experts."""

from __future__ import annotations

from dataclasses import replace

from ..program.instructions import Activation, Instruction, Moe, Routing
from ..program.operands import Layout, Weight
from ..program.rope import Rope
from .blocks import Blocks, Sizes
from .config import ModelConfig
from .family import Body, tile_buffer, weight
from .rope import read_rope
from .rotary_bert import NATIVE, Names, rotary_bert

ORIGINAL = Names(
    embedding_norm="emb_ln",
    layer="encoder.layers",
    qkv=("attn.Wqkv",),
    output="attn.out_proj",
    attention_norm="norm1",
    mlp_norm="norm2",
)
GATES: dict[str, Activation] = {"swiglu": "silu", "geglu": "gelu"}
ABSENT = ("prenorm", "parallel_block", "use_rms_norm", "causal", "norm_mlp", "rotary_head_dim", "expert_choice_router")


def nomic_bert(config: ModelConfig) -> Body:
    """`model_type: "nomic_bert"`, with the fields and the tensor names of transformers or of the original code."""
    for name in ABSENT:
        config.require(name, False)
    original = config.values.get("hidden_size") is None  # else what the config lacks is as in transformers
    names = ORIGINAL if config.holds(".Wqkv.") else NATIVE
    gated, activation = _activation(config, original)
    mixture = _mixture(config, gated)
    eps = config.number(config.spelling("layer_norm_eps", "layer_norm_epsilon"), default=1e-12)
    blocks = Blocks(_sizes(config, gated), eps, norm_kind="layer")
    up_bias, down_bias = (config.flag(f"mlp_fc{i}_bias", default=original) for i in (1, 2))
    parts: tuple[str, ...] = ("gate_proj", "up_proj", "down_proj")
    if names is ORIGINAL:
        parts = ("fc12", "fc11", "fc2") if gated else ("fc1", "fc2")

    def mlp(stage: int, index: int, at: str) -> Instruction:
        if mixture is not None and index % mixture[0] == 1:
            return _experts(stage, at, blocks, mixture[1], activation)
        x = blocks.x
        return blocks.mlp(stage, at, parts, x, x, activation, bias=up_bias, down_bias=down_bias, residual=x)

    positions = _positions(config)
    rope = _rope(config, blocks.sizes.head_size, original)
    return rotary_bert(
        "nomic_bert",
        blocks,
        names,
        mlp,
        layers=config.integer(config.spelling("num_hidden_layers", "n_layer")),
        vocabulary=_vocabulary(config),
        types=config.natural("type_vocab_size", default=2),
        rope=rope,
        bias=config.flag("qkv_proj_bias", default=original),
        max_positions=positions,
        prefixes=("", "nomic_bert.", "bert."),
        learned_positions=positions if rope is None else 0,
    )


def _activation(config: ModelConfig, original: bool) -> tuple[bool, Activation]:
    """Whether MLPs are gated, and their activation."""
    field = "activation_function"
    if config.values.get(field) is None and not original:
        return True, config.activation("hidden_act", default="silu")
    name = config.text(field)
    if name in GATES:
        return True, GATES[name]
    if name != "gelu":
        raise config.wrong(field, f"is {name!r}; known are geglu, gelu, swiglu")
    return False, "gelu"


def _sizes(config: ModelConfig, gated: bool) -> Sizes:
    inner = config.spelling("intermediate_size", "n_inner")
    width, heads = config.spelling("hidden_size", "n_embd"), config.spelling("num_attention_heads", "n_head")
    sizes = Sizes.of(config, width=width, heads=heads, inner=inner)
    # The original code makes gated MLPs as wide as the next multiple of 256.
    return replace(sizes, inner=_up_to(256, sizes.inner)) if gated and inner == "n_inner" else sizes


def _up_to(multiple: int, value: int) -> int:
    return -(-value // multiple) * multiple


def _vocabulary(config: ModelConfig) -> int:
    return _up_to(config.integer("pad_vocab_size_multiple", default=1), config.integer("vocab_size"))


def _positions(config: ModelConfig) -> int:
    """Rotary positions have no last one: of two fields the greater counts."""
    given = [name for name in ("max_position_embeddings", "n_positions") if config.values.get(name) is not None]
    return max(map(config.integer, given)) if given else config.integer("max_position_embeddings")


def _rope(config: ModelConfig, head_size: int, original: bool) -> Rope | None:
    config.require("rotary_emb_scale_base", None)
    part_field = "rotary_emb_fraction"
    part = config.optional_number(part_field)
    if part == 0 or (part is None and original):
        return None
    theta = config.number("rotary_emb_base", default=1000.0)
    factor = config.optional_number("rotary_scaling_factor")
    if factor:
        base = config.table("rope_parameters").number("rope_theta", default=theta)
        trained = config.integer("max_trained_positions", default=2048)
        dynamic = {"rope_type": "dynamic", "factor": factor, "rope_theta": base}
        config = config.changed(rope_parameters=dynamic, max_position_embeddings=trained)
    interleaved = config.flag("rotary_emb_interleaved", default=False)
    return read_rope(config, head_size, theta=theta, part=part, part_field=part_field, interleaved=interleaved)


def _mixture(config: ModelConfig, gated: bool) -> tuple[int, Routing] | None:
    """Every how many layers there are experts, and how a token chooses them."""
    every = config.natural("moe_every_n_layers", default=0)
    if not every:
        return None
    if gated:
        name = "activation_function"
        raise config.wrong(name, f"is {config.values.get(name)!r}; experts are supported with 'gelu' only")
    config.require("num_shared_experts", 0)
    config.require("ffn_div", 1)
    experts, chosen = config.integer("num_experts"), config.integer("moe_top_k")
    if chosen > experts:
        raise config.wrong("moe_top_k", f"is {chosen}, but there are {experts} experts")
    normalised = config.flag("moe_normalize_expert_weights", default=False)
    return every, Routing(experts=experts, chosen=chosen, normalised=normalised)


def _experts(stage: int, at: str, blocks: Blocks, routing: Routing, activation: Activation) -> Moe:
    width, inner, count = blocks.sizes.width, blocks.sizes.inner, routing.experts
    stored = Layout((count * inner, width), folded=(count, inner, width), axes=(0, 2, 1))
    return Moe(
        stage=stage,
        x=blocks.x,
        out=blocks.x,
        logits=tile_buffer("logits", count),
        gathered=tile_buffer("gathered", width),
        hidden=tile_buffer("hidden", inner),
        sums=tile_buffer("sums", width),
        router=weight(f"{at}.router.layer.weight", count, width),
        routing=routing,
        up=weight(f"{at}.experts.mlp.w1", count * inner, width),
        down=Weight((f"{at}.experts.mlp.w2",), (count * width, inner), stored),
        out_bias=weight(f"{at}.experts.bias", width),
        activation=activation,
        residual=blocks.x,
    )
