"""SmolLM 3."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import SmolLM3Config, SmolLM3ForCausalLM, SmolLM3Model

from longspan.checkpoint.config import read_json

from .harness import Peer, assert_refused, check, encoder_of, save
from .tiny import BASE, DYNAMIC, LINEAR, LLAMA3, LONG, YARN

CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {"num_hidden_layers": 5},
    "every second layer": {"no_rope_layer_interval": 2, "num_key_value_heads": 4},
    "given layers": {"no_rope_layers": [0, 1, 0], "head_dim": 40},
    "no positions": {"no_rope_layer_interval": 1, "num_hidden_layers": 2},
    "windows": {"use_sliding_window": True, "sliding_window": 6, "no_rope_layer_interval": 2},
    "unused window": {"use_sliding_window": False, "sliding_window": 6},
    "layer types": {
        "use_sliding_window": True,
        "sliding_window": 64,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "biases": {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1},
    "untied": {"tie_word_embeddings": False, "rms_norm_eps": 1e-3, "intermediate_size": 33},
    "linear": {"rope_parameters": LINEAR},
    "dynamic": {"rope_parameters": DYNAMIC},
    "yarn": {"rope_parameters": YARN, "no_rope_layer_interval": 3},
    "llama3": {"rope_parameters": LLAMA3},
    "longrope": {"rope_parameters": LONG},
    "both sides": {"is_causal": False, "use_sliding_window": True, "sliding_window": 6, "no_rope_layer_interval": 2},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_smollm3(tmp_path: Path, name: str) -> None:
    check(save(tmp_path, SmolLM3Model(SmolLM3Config(**BASE | CONFIGS[name]))), Peer(SmolLM3Model))


def test_weights_of_a_language_model(tmp_path: Path) -> None:
    check(save(tmp_path, SmolLM3ForCausalLM(SmolLM3Config(**BASE))), Peer(SmolLM3Model))


def test_a_config_without_what_has_defaults(tmp_path: Path) -> None:
    folder = save(tmp_path, SmolLM3Model(SmolLM3Config(**BASE | {"num_hidden_layers": 4, "num_key_value_heads": 4})))
    fields = read_json(folder / "config.json")
    silent = ("no_rope_layers", "no_rope_layer_interval", "layer_types", "num_key_value_heads", "rope_parameters")
    for name in (*silent, "max_position_embeddings"):
        del fields[name]
    (folder / "config.json").write_text(json.dumps(fields))
    check(folder, Peer(SmolLM3Model))
    assert encoder_of(folder, "generic").max_seq_length == 32768


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"no_rope_layers": [1, 0]}, "field 'no_rope_layers' is not a list of 3 numbers"),
        ({"no_rope_layer_interval": 0}, "field 'no_rope_layer_interval' is 0, expected a positive integer"),
        ({"layer_types": ["full_attention", "full_attention", "none"]}, "field 'layer_types' is not a list of 3 of"),
        ({"vocab_size": None}, "field 'vocab_size' is missing"),
    ],
)
def test_config_errors(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert_refused(tmp_path, BASE | {"model_type": "smollm3"} | changes, message)
