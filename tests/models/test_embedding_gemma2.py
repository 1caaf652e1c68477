"""EmbeddingGemma 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers.models.embedding_gemma2.configuration_embedding_gemma2 import (
    EmbeddingGemma2Config,
    EmbeddingGemma2TextConfig,
)
from transformers.models.embedding_gemma2.modeling_embedding_gemma2 import (
    EmbeddingGemma2Model,
    EmbeddingGemma2TextModel,
)

from longspan.models import build_body
from longspan.models.config import ModelConfig
from longspan.program.instructions import Attention

from .harness import Peer, assert_refused, check, encoder_of, save
from .tiny import BASE as PLAIN
from .tiny import DYNAMIC, LINEAR, LLAMA3, YARN

BASE = PLAIN | {
    "hidden_size_per_layer_input": 12,
    "embedding_dim": 20,
    "sliding_window": 11,
    "sliding_window_pattern": 2,
    "global_head_dim": 32,
}


def per_type(full: dict[str, Any], sliding: dict[str, Any]) -> dict[str, Any]:
    """Rotary positions by the type of layer."""
    return {"rope_parameters": {"full_attention": full, "sliding_attention": sliding}}


PROPORTIONAL = {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000.0}
USUAL = {"rope_type": "default", "rope_theta": 30.0}

CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "proportional": per_type(PROPORTIONAL, USUAL),
    "proportional with a factor": per_type(PROPORTIONAL | {"factor": 8.0, "partial_rotary_factor": 0.5}, USUAL),
    "small window": {"sliding_window": 1, "hidden_size_per_layer_input": 40, "rms_norm_eps": 1e-3},
    "large window": {"sliding_window": 500, "embedding_dim": 96},
    "local alone": {"sliding_window_pattern": 9, "num_hidden_layers": 4},
    "types": {
        "layer_types": ["full_attention", "sliding_attention", "full_attention"],
        "num_global_key_value_heads": 4,
    },
    "last layer forced": {"layer_types": ["full_attention", "full_attention", "sliding_attention"]},
    "by layer": {
        "layer_types": ["full_attention", "sliding_attention", "full_attention"],
        "per_layer_config": {
            "0": {"head_dim": 40, "num_key_value_heads": 4},
            "1": {"num_key_value_heads": 1},
            "2": {"head_dim": 40, "num_key_value_heads": 4},
        },
    },
    "biases": {"attention_bias": True, "hidden_activation": "silu", "num_key_value_heads": 4},
    "wide heads": {"global_head_dim": 512, "head_dim": 256, "num_hidden_layers": 2},
    "layers alike": {"global_head_dim": 16, "num_key_value_heads": 4, "num_global_key_value_heads": 4},
    "linear": per_type(LINEAR, USUAL),
    "dynamic": per_type(USUAL, DYNAMIC),
    "yarn": per_type(YARN, LINEAR),
    "llama3": per_type(LLAMA3, USUAL),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_text(tmp_path: Path, name: str) -> None:
    config = EmbeddingGemma2TextConfig(**BASE | CONFIGS[name])
    # Scores without a scale are large, and what rounds twice as often there shows: one of these errs by 3.5 times.
    check(save(tmp_path, EmbeddingGemma2TextModel(config)), Peer(EmbeddingGemma2TextModel), unfused=4.0)


WRAPPED = ("proportional", "small window", "large window", "types", "biases", "linear", "yarn")


@pytest.mark.parametrize("name", WRAPPED)
def test_configurations_of_a_model_of_images(tmp_path: Path, name: str) -> None:
    folder = save(tmp_path, EmbeddingGemma2Model(EmbeddingGemma2Config(text_config=BASE | CONFIGS[name])))
    check(folder, Peer(EmbeddingGemma2Model), unfused=4.0)


def test_text_of_a_model_of_images(tmp_path: Path) -> None:
    folder = save(tmp_path, EmbeddingGemma2Model(EmbeddingGemma2Config(text_config=BASE)))
    check(folder, Peer(EmbeddingGemma2Model))
    encoder = encoder_of(folder, "generic")
    assert (encoder.get_embedding_dimension(), encoder.max_seq_length) == (20, 160)


def test_a_config_without_what_has_defaults(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "embedding_gemma2", "text_config": {}}))
    body = build_body(ModelConfig.read(path))
    attention = [step for step in body.instructions if isinstance(step, Attention)]
    assert [(step.left, step.right) for step in attention[4:7]] == [(512, 512), (None, None), (512, 512)]
    assert [(step.heads, step.kv_heads, step.head_size) for step in attention[4:6]] == [(4, 2, 256), (4, 1, 512)]
    assert (len(attention), body.output.width, body.max_positions) == (24, 768, 262144)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"per_layer_config": {"3": {"head_dim": 32}}}, "field 'per_layer_config.3' is no layer of 3"),
        ({"per_layer_config": {"x": {}}}, "field 'per_layer_config.x' is no layer of 3"),
        ({"per_layer_config": {"0": 3}}, "field 'per_layer_config.0' is 3, expected an object"),
        (
            {"per_layer_config": {"0": {"intermediate_size": 9}}},
            "field 'per_layer_config.0.intermediate_size' is not supported; layers may differ in head_dim and num_key",
        ),
        ({"global_head_dim": 20}, "field 'per_layer_config.1.head_dim' is 20, expected a multiple of 8 up to 512"),
        (
            {"num_global_key_value_heads": 3},
            "field 'per_layer_config.1.num_key_value_heads' is 3, which does not divide 4 heads",
        ),
        ({"sliding_window": 0}, "field 'sliding_window' is 0, expected a positive integer"),
        ({"embedding_dim": "wide"}, "field 'embedding_dim' is 'wide', expected a positive integer"),
    ],
)
def test_config_errors(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert_refused(tmp_path, BASE | {"model_type": "embedding_gemma2_text"} | changes, message)
