"""MPNet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import MPNetConfig, MPNetForMaskedLM, MPNetModel

from longspan import Encoder

from .harness import VOCABULARY, Peer, assert_refused, check, check_errors, save, texts_of

BASE = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 48,
    "num_attention_heads": 3,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "max_position_embeddings": 140,
    "initializer_range": 0.15,
    "layer_norm_eps": 1e-5,
}

WIDE = {"initializer_range": 0.05}  # with more, attention looks at one token each, and rounding decides which

CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "head size 8": {"hidden_size": 24, "intermediate_size": 17},
    "head size 24": {"hidden_size": 72, "hidden_act": "gelu_new"},
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
    "head size 128": {"hidden_size": 128, "num_attention_heads": 1, "hidden_act": "silu", **WIDE},
    "unused buckets": {"relative_attention_num_buckets": 40, "layer_norm_eps": 1e-12},
    "padding elsewhere": {"pad_token_id": 0, "max_position_embeddings": 135},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_mpnet(tmp_path: Path, name: str) -> None:
    check(save(tmp_path, MPNetModel(MPNetConfig(**BASE | CONFIGS[name]))), Peer(MPNetModel))


def test_beyond_the_last_bucket(tmp_path: Path) -> None:
    folder = save(tmp_path, MPNetModel(MPNetConfig(**BASE | {"max_position_embeddings": 514})))
    check(folder, Peer(MPNetModel), texts_of((510, 300, 3)))


def test_weights_of_a_language_model(tmp_path: Path) -> None:
    folder = save(tmp_path, MPNetForMaskedLM(MPNetConfig(**BASE)), torch.bfloat16)
    assert "mpnet.encoder.relative_attention_bias.weight" in load_file(folder / "model.safetensors")
    check(folder, Peer(MPNetModel))


def test_padding_in_a_text(tmp_path: Path) -> None:
    """Of the id 1 always, whatever the config says: here that of a word the tokenizer does not know."""
    folder = save(tmp_path, MPNetModel(MPNetConfig(**BASE)))
    check_errors(folder, Peer(MPNetModel), ["a b <unk> c <unk> <unk> d", "<unk>", "<unk> a", "a b c"])


def test_maximum(tmp_path: Path) -> None:
    assert Encoder(save(tmp_path, MPNetModel(MPNetConfig(**BASE)))).max_seq_length == 138


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": None}, "field 'hidden_size' is missing"),
        ({"relative_attention_num_buckets": 16}, "field 'relative_attention_num_buckets' is 16, expected at least 32"),
        ({"max_position_embeddings": 2}, "field 'max_position_embeddings' is 2, but the first token has row 2"),
        ({"hidden_act": "mish"}, "field 'hidden_act' is 'mish'; known are gelu"),
        ({"num_hidden_layers": 2.0}, "field 'num_hidden_layers' is 2.0, expected a positive integer"),
    ],
)
def test_config_errors(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert_refused(tmp_path, {**BASE, "model_type": "mpnet", **changes}, message)
