"""DistilBERT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import DistilBertConfig, DistilBertForMaskedLM, DistilBertModel

from longspan import Encoder

from .harness import VOCABULARY, Peer, assert_refused, check, save

BASE = {
    "vocab_size": len(VOCABULARY),
    "dim": 48,
    "n_heads": 3,
    "hidden_dim": 80,
    "n_layers": 2,
    "max_position_embeddings": 140,
    "initializer_range": 0.15,
}

WIDE = {"initializer_range": 0.05}  # with more, attention looks at one token each, and rounding decides which

CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "head size 8": {"dim": 24, "hidden_dim": 17},
    "head size 16": {"dim": 16, "n_heads": 1, "hidden_dim": 1, "activation": "relu"},
    "head size 40": {"dim": 120, "n_heads": 3, "activation": "gelu_new", "n_layers": 4},
    "head size 64": {"dim": 192, "n_heads": 3, "hidden_dim": 515, "n_layers": 1, **WIDE},
    "head size 96": {"dim": 96, "n_heads": 1, "activation": "silu", **WIDE},
    "head size 128": {"dim": 256, "n_heads": 2, "activation": "tanh", **WIDE},
    "computed positions": {"sinusoidal_pos_embds": True},
    "no position to spare": {"max_position_embeddings": 133, "activation": "gelu_pytorch_tanh"},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_distilbert(tmp_path: Path, name: str) -> None:
    check(save(tmp_path, DistilBertModel(DistilBertConfig(**BASE | CONFIGS[name]))), Peer(DistilBertModel))


def test_weights_of_a_language_model(tmp_path: Path) -> None:
    folder = save(tmp_path, DistilBertForMaskedLM(DistilBertConfig(**BASE)), torch.bfloat16)
    assert "distilbert.embeddings.LayerNorm.weight" in load_file(folder / "model.safetensors")
    check(folder, Peer(DistilBertModel))


def test_maximum(tmp_path: Path) -> None:
    assert Encoder(save(tmp_path, DistilBertModel(DistilBertConfig(**BASE)))).max_seq_length == 140


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": None}, "field 'dim' is missing"),
        ({"hidden_dim": None}, "field 'hidden_dim' is missing"),
        ({"n_heads": 5}, "dim 48 over n_heads 5 gives no head size"),
        ({"hidden_size": 64}, "field 'hidden_size' is 64, but 'dim' is 48"),
        ({"activation": "mish"}, "field 'activation' is 'mish'; known are gelu"),
        ({"max_position_embeddings": 0}, "field 'max_position_embeddings' is 0, expected a positive integer"),
    ],
)
def test_config_errors(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert_refused(tmp_path, {**BASE, "model_type": "distilbert", **changes}, message)
