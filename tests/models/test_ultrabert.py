"""UltraBERT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import UltrabertConfig, UltrabertForMaskedLM, UltrabertModel

from longspan import Encoder

from .harness import VOCABULARY, Peer, assert_refused, check, edit_config, edit_tensors, save
from .tiny import DYNAMIC, LLAMA3, LONG

BASE = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 48,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "intermediate_size": 80,
    "num_hidden_layers": 4,
    "sliding_window": 9,
    "max_position_embeddings": 160,
    "initializer_range": 0.15,
    "prediction_head_size": 8,
}
FULL, SLIDING = "full_attention", "sliding_attention"
PLAIN = {"rope_type": "default", "rope_theta": 500.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 40, "rope_theta": 1000.0}

CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "head size 8": {"hidden_size": 24, "intermediate_size": 17, "sliding_window": 1},
    "head size 40, one kv head": {"hidden_size": 120, "num_key_value_heads": 1, "rms_norm_eps": 1e-3},
    "head size 64": {"hidden_size": 320, "num_attention_heads": 5, "num_key_value_heads": 5, "num_hidden_layers": 1},
    "head size 128": {"head_dim": 128, "hidden_act": "gelu", "num_key_value_heads": 1},
    "biases": {"attention_bias": True, "mlp_bias": True, "sliding_window": 64},
    "window beyond the texts": {"sliding_window": 600, "hidden_act": "relu"},
    "layer types": {"layer_types": [FULL, SLIDING, SLIDING, FULL], "hidden_act": "gelu_pytorch_tanh"},
    "all full": {"layer_types": [FULL] * 4},
    "linear": {"rope_parameters": {FULL: {"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0}, SLIDING: PLAIN}},
    "yarn": {"rope_parameters": {FULL: YARN, SLIDING: {"rope_type": "default"}}},
    "dynamic": {"rope_parameters": {FULL: DYNAMIC, SLIDING: PLAIN}},
    "llama3": {"rope_parameters": {FULL: LLAMA3, SLIDING: PLAIN}},
    "longrope": {"rope_parameters": {FULL: LONG, SLIDING: LLAMA3}},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_ultrabert(tmp_path: Path, name: str) -> None:
    check(save(tmp_path, UltrabertModel(UltrabertConfig(**BASE | CONFIGS[name]))), Peer(UltrabertModel))


@pytest.mark.parametrize(
    "thetas", [None, [100.0, 900.0, 100.0, 900.0]], ids=["older config", "older config with bases"]
)
def test_older_configs(tmp_path: Path, thetas: list[float] | None) -> None:
    """Those published with the model: a window and a base for each layer."""
    folder = save(tmp_path, UltrabertModel(UltrabertConfig(**BASE)))
    fields = {"layer_types": None, "rope_parameters": None, "sliding_window": None}
    edit_config(folder, attention_windows=[5, 0, 5, 0], rope_theta=thetas, **fields)
    edit_tensors(folder, lambda name: f"ultrabert.{name}")
    check(folder, Peer(UltrabertModel))


def test_weights_of_a_language_model(tmp_path: Path) -> None:
    folder = save(tmp_path, UltrabertForMaskedLM(UltrabertConfig(**BASE)), torch.bfloat16)
    assert any(name.endswith(".embed_tokens.weight") for name in load_file(folder / "model.safetensors"))
    check(folder, Peer(UltrabertModel))


def test_maximum(tmp_path: Path) -> None:
    assert Encoder(save(tmp_path, UltrabertModel(UltrabertConfig(**BASE)))).max_seq_length == 160


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": None}, "field 'hidden_size' is missing"),
        ({"sliding_window": -5}, "field 'sliding_window' is -5, expected an integer of at least 0"),
        ({"attention_windows": [5, 5]}, "field 'attention_windows' is [5, 5], expected a list of 4 integers"),
        ({"attention_windows": [5, 5, 0, "x"]}, "field 'attention_windows' is [5, 5, 0, 'x'], expected a list of 4"),
        ({"attention_windows": [5, 6, 0, 5]}, "field 'attention_windows' holds the windows [5, 6]; only one"),
        (
            {"attention_windows": [5, 5, 0, 5], "layer_types": [FULL] * 4},
            "field 'layer_types' contradicts 'attention_windows'",
        ),
        ({"rope_theta": 100.0}, "field 'rope_theta' is 100.0, expected 4 numbers"),
        ({"rope_theta": [1.0, 2.0, 3.0, 1.0]}, "field 'rope_theta' holds the bases [1.0, 2.0] for layers with sliding"),
    ],
)
def test_config_errors(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert_refused(tmp_path, {**BASE, "model_type": "ultrabert", **changes}, message)
