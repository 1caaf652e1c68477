"""Jina v3: XLM-RoBERTa with rotary positions, and in the original code's checkpoints with adaptations for tasks."""

from __future__ import annotations

from ..checkpoint.adaptations import read_adaptations
from ..program.instructions import Instruction
from ..program.rope import Rope
from .blocks import Blocks, Sizes
from .config import ModelConfig
from .family import Body
from .low_rank import Pairs, with_pairs
from .rope import read_rope
from .rotary_bert import NATIVE, Names, rotary_bert

ORIGINAL = Names(
    embedding_norm="emb_ln",
    layer="encoder.layers",
    qkv=("mixer.Wqkv",),
    output="mixer.out_proj",
    attention_norm="norm1",
    mlp_norm="norm2",
)


def jina_v3(config: ModelConfig) -> Body:
    """`model_type: "jina_embeddings_v3"`: transformers'."""
    rope = read_rope(config, Sizes.of(config).head_size, theta=20_000.0)
    return _body(config, ORIGINAL if config.holds(".Wqkv.") else NATIVE, rope)


def xlm_roberta_flash(config: ModelConfig) -> Body:
    """`model_type: "xlm-roberta"` with `position_embedding_type: "rotary"`: the original code's."""
    theta = config.number("rotary_emb_base", default=10_000.0)
    body = _body(config, ORIGINAL, read_rope(config, Sizes.of(config).head_size, theta=theta))
    adaptations = read_adaptations(config)
    if adaptations is None:
        return body
    rank = config.integer("lora_rank", default=4)
    return with_pairs(body, Pairs(len(adaptations.tasks), rank, config.number("lora_alpha", default=1.0) / rank))


def _body(config: ModelConfig, names: Names, rope: Rope | None) -> Body:
    blocks = Blocks(Sizes.of(config), config.number("layer_norm_eps", default=1e-5), norm_kind="layer")
    activation = config.activation("hidden_act", default="gelu")

    def mlp(stage: int, index: int, at: str) -> Instruction:
        return blocks.mlp(stage, at, ("fc1", "fc2"), blocks.x, blocks.x, activation, bias=True, residual=blocks.x)

    return rotary_bert(
        "jina_v3",
        blocks,
        names,
        mlp,
        layers=config.integer("num_hidden_layers"),
        vocabulary=config.integer("vocab_size"),
        types=config.natural("type_vocab_size", default=1),
        rope=rope,
        bias=True,
        max_positions=config.integer("max_position_embeddings"),
        prefixes=("", "roberta."),
        renamed=((".weight", ".parametrizations.weight.original"),),
    )
