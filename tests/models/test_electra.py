"""ELECTRA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining, ElectraModel

from longspan import Encoder

from .harness import VOCABULARY, Peer, assert_refused, check, save

BASE = {
    "vocab_size": len(VOCABULARY),
    "embedding_size": 20,
    "hidden_size": 48,
    "num_attention_heads": 3,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "max_position_embeddings": 140,
    "initializer_range": 0.15,
}

WIDE = {"initializer_range": 0.05}  # with more, attention looks at one token each, and rounding decides which

CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "not projected": {"embedding_size": 48},
    "wider embeddings": {"embedding_size": 131, "hidden_act": "gelu_new"},
    "one component": {"embedding_size": 1, "layer_norm_eps": 0.1},
    "head size 8": {"hidden_size": 24, "intermediate_size": 17, "type_vocab_size": 1},
    "head size 40": {"hidden_size": 40, "num_attention_heads": 1, "hidden_act": "relu", "intermediate_size": 1},
    "head size 64": {
        "hidden_size": 320,
        "num_attention_heads": 5,
        "intermediate_size": 515,
        "num_hidden_layers": 1,
        **WIDE,
    },
    "head size 96": {
        "hidden_size": 192,
        "num_attention_heads": 2,
        "hidden_act": "tanh",
        "num_hidden_layers": 3,
        **WIDE,
    },
    "head size 128": {
        "hidden_size": 128,
        "num_attention_heads": 1,
        "hidden_act": "silu",
        "layer_norm_eps": 1e-5,
        **WIDE,
    },
}


@pytest.mark.parametrize("name", CONFIGS)
def test_electra(tmp_path: Path, name: str) -> None:
    check(save(tmp_path, ElectraModel(ElectraConfig(**BASE | CONFIGS[name]))), Peer(ElectraModel))


@pytest.mark.parametrize("model", [ElectraForMaskedLM, ElectraForPreTraining])
def test_weights_of_a_language_model(tmp_path: Path, model: Any) -> None:
    folder = save(tmp_path, model(ElectraConfig(**BASE)), torch.bfloat16)
    assert "electra.embeddings_project.weight" in load_file(folder / "model.safetensors")
    check(folder, Peer(ElectraModel))


def test_maximum(tmp_path: Path) -> None:
    assert Encoder(save(tmp_path, ElectraModel(ElectraConfig(**BASE)))).max_seq_length == 140


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": None}, "field 'hidden_size' is missing"),
        ({"embedding_size": 0}, "field 'embedding_size' is 0, expected a positive integer"),
        ({"is_decoder": True}, "field 'is_decoder' is True; only False"),
        ({"hidden_act": 1}, "field 'hidden_act' is 1, expected a string"),
    ],
)
def test_config_errors(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert_refused(tmp_path, {**BASE, "model_type": "electra", **changes}, message)
