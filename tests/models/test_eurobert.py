"""EuroBERT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import EuroBertConfig, EuroBertForMaskedLM, EuroBertModel

from longspan import Encoder

from .harness import VOCABULARY, Peer, assert_refused, check, edit_config, save
from .tiny import LLAMA3, LONG, YARN

BASE = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 48,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "max_position_embeddings": 160,
    "initializer_range": 0.15,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "mask_token_id": 1,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "head size 8": {"hidden_size": 24, "intermediate_size": 17},
    "head size 40, one kv head": {"hidden_size": 120, "num_key_value_heads": 1, "rms_norm_eps": 1e-3},
    "head size 64": {"hidden_size": 320, "num_attention_heads": 5, "num_key_value_heads": 5, "num_hidden_layers": 1},
    "head size 128": {"head_dim": 128, "hidden_act": "gelu", "num_key_value_heads": 1},
    "grouped": {"hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 2, "hidden_act": "relu"},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "tied": {"tie_word_embeddings": True, "hidden_act": "gelu_pytorch_tanh"},
    "linear": {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0}},
    "dynamic": {
        "rope_parameters": {"rope_type": "dynamic", "factor": 3.0, "rope_theta": 100.0},
        "max_position_embeddings": 140,
    },
    "yarn": {"rope_parameters": YARN},
    "llama3": {"rope_parameters": LLAMA3},
    "longrope": {"rope_parameters": LONG},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_eurobert(tmp_path: Path, name: str) -> None:
    check(save(tmp_path, EuroBertModel(EuroBertConfig(**BASE | CONFIGS[name]))), Peer(EuroBertModel))


def test_older_configs(tmp_path: Path) -> None:
    """Those published with the model: the base is a field of its own, and null stands for what was not said."""
    folder = save(tmp_path, EuroBertModel(EuroBertConfig(**BASE)))
    edit_config(folder, rope_parameters=None, rope_theta=250.0, head_dim=None, num_key_value_heads=None)
    check(folder, Peer(EuroBertModel))


def test_weights_of_a_language_model(tmp_path: Path) -> None:
    folder = save(tmp_path, EuroBertForMaskedLM(EuroBertConfig(**BASE)), torch.bfloat16)
    assert "model.embed_tokens.weight" in load_file(folder / "model.safetensors")
    check(folder, Peer(EuroBertModel))


def test_maximum(tmp_path: Path) -> None:
    assert Encoder(save(tmp_path, EuroBertModel(EuroBertConfig(**BASE)))).max_seq_length == 160


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"intermediate_size": None}, "field 'intermediate_size' is missing"),
        ({"num_key_value_heads": 2}, "field 'num_key_value_heads' is 2, which does not divide 3 heads"),
        ({"head_dim": 20}, "field 'head_dim' is 20, expected a multiple of 8 up to 512"),
        ({"mlp_bias": "no"}, "field 'mlp_bias' is 'no', expected true or false"),
        ({"rope_theta": -1.0}, "field 'rope_theta' is -1.0, expected a finite number of at least 0"),
        ({"rope_scaling": {"rope_type": "linear"}}, "field 'rope_scaling.factor' is missing"),
    ],
)
def test_config_errors(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert_refused(tmp_path, {**BASE, "model_type": "eurobert", **changes}, message)
