"""OLMo 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import Olmo2Config, Olmo2ForCausalLM, Olmo2Model

from .harness import Peer, assert_refused, check, encoder_of, save
from .tiny import BASE, DYNAMIC, LINEAR, LLAMA3, LONG, YARN

CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no head_dim": {"hidden_size": 64, "head_dim": None, "num_key_value_heads": None},
    "one kv head": {"num_key_value_heads": 1, "head_dim": 72},
    "head size 8": {"head_dim": 8, "num_hidden_layers": 1, "rms_norm_eps": 1e-2},
    "biases": {"attention_bias": True, "hidden_act": "gelu"},
    "tied": {"tie_word_embeddings": True, "intermediate_size": 33},
    "linear": {"rope_parameters": LINEAR},
    "dynamic": {"rope_parameters": DYNAMIC},
    "yarn": {"rope_parameters": YARN, "num_attention_heads": 6, "num_key_value_heads": 3},
    "llama3": {"rope_parameters": LLAMA3},
    "longrope": {"rope_parameters": LONG},
    "both sides": {"is_causal": False},
}


def config_of(**options: Any) -> Olmo2Config:
    fields = BASE | options
    return Olmo2Config(**{name: value for name, value in fields.items() if value is not None})


@pytest.mark.parametrize("name", CONFIGS)
def test_olmo2(tmp_path: Path, name: str) -> None:
    check(save(tmp_path, Olmo2Model(config_of(**CONFIGS[name]))), Peer(Olmo2Model))


def test_weights_of_a_language_model(tmp_path: Path) -> None:
    check(save(tmp_path, Olmo2ForCausalLM(config_of())), Peer(Olmo2Model))


def test_maximum(tmp_path: Path) -> None:
    assert encoder_of(save(tmp_path, Olmo2Model(config_of())), "generic").max_seq_length == 160


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": None}, "field 'num_hidden_layers' is missing"),
        ({"head_dim": 1024}, "field 'head_dim' is 1024, expected a multiple of 8 up to 512"),
        ({"attention_bias": 1}, "field 'attention_bias' is 1, expected true or false"),
        ({"rope_scaling": {"rope_type": "spiral"}}, "field 'rope_scaling.rope_type' is 'spiral'; known are default"),
    ],
)
def test_config_errors(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert_refused(tmp_path, BASE | {"model_type": "olmo2"} | changes, message)
