"""RoBERTa, XLM-RoBERTa and CamemBERT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    CamembertConfig,
    CamembertForMaskedLM,
    CamembertModel,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
    XLMRobertaModel,
)

from longspan import Encoder

from .harness import VOCABULARY, Peer, assert_refused, check, check_errors, encoder_of, save, token_vectors

BASE = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 48,
    "num_attention_heads": 3,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "max_position_embeddings": 140,
    "type_vocab_size": 1,
    "initializer_range": 0.15,
    "layer_norm_eps": 1e-5,
}

WIDE = {"initializer_range": 0.05}  # with more, attention looks at one token each, and rounding decides which

ROBERTAS: dict[str, dict[str, Any]] = {
    "plain": {},
    "head size 8": {"hidden_size": 24, "intermediate_size": 17},
    "head size 24": {"hidden_size": 72, "hidden_act": "gelu_new", "type_vocab_size": 2},
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
    "padding 0": {"pad_token_id": 0, "layer_norm_eps": 1e-12, "hidden_act": "gelu_pytorch_tanh"},
    "great eps": {"layer_norm_eps": 0.1, "hidden_act": "gelu_fast"},
    "no position to spare": {"max_position_embeddings": 135},
}


@pytest.mark.parametrize("name", ROBERTAS)
def test_roberta(tmp_path: Path, name: str) -> None:
    check(save(tmp_path, RobertaModel(RobertaConfig(**BASE | ROBERTAS[name]))), Peer(RobertaModel))


def test_weights_of_a_language_model(tmp_path: Path) -> None:
    folder = save(tmp_path, RobertaForMaskedLM(RobertaConfig(**BASE)))
    assert "roberta.embeddings.LayerNorm.weight" in load_file(folder / "model.safetensors")
    check(folder, Peer(RobertaModel))


def test_bfloat16_weights(tmp_path: Path) -> None:
    check(save(tmp_path, RobertaModel(RobertaConfig(**BASE)), torch.bfloat16), Peer(RobertaModel))


@pytest.mark.parametrize("name", ["plain", "head size 24", "padding 0"])
def test_xlm_roberta(tmp_path: Path, name: str) -> None:
    config = XLMRobertaConfig(**BASE | ROBERTAS[name])
    check(save(tmp_path / "base", XLMRobertaModel(config)), Peer(XLMRobertaModel))
    check(save(tmp_path / "mlm", XLMRobertaForMaskedLM(config), torch.bfloat16), Peer(XLMRobertaModel))


@pytest.mark.parametrize("name", ROBERTAS)
def test_camembert(tmp_path: Path, name: str) -> None:
    check(save(tmp_path, CamembertModel(CamembertConfig(**BASE | ROBERTAS[name]))), Peer(CamembertModel))


def test_weights_of_camembert_as_a_language_model(tmp_path: Path) -> None:
    check(save(tmp_path, CamembertForMaskedLM(CamembertConfig(**BASE)), torch.bfloat16), Peer(CamembertModel))


PADDED = ["a b <pad> c <pad> <pad> d", "<pad>", "<pad> a", "a b c"]


def test_padding_in_a_text(tmp_path: Path) -> None:
    """It has the row of padding, and those behind it are numbered as if it were not there."""
    folder = save(tmp_path, RobertaModel(RobertaConfig(**BASE | {"pad_token_id": 0})))
    check_errors(folder, Peer(RobertaModel), PADDED)


@pytest.mark.parametrize("extend", ["grouped", "recurrent", "interpolate"])
def test_padding_in_an_extended_text(tmp_path: Path, extend: Any) -> None:
    folder = save(tmp_path, RobertaModel(RobertaConfig(**BASE | {"pad_token_id": 0})))
    usual, longer = (encoder_of(folder, "generic", extend=method) for method in (None, extend))
    for mine, theirs in zip(*(token_vectors(encoder, PADDED, None) for encoder in (usual, longer)), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)


@pytest.mark.parametrize(("padding", "maximum"), [(0, 139), (1, 138)])
def test_maximum(tmp_path: Path, padding: int, maximum: int) -> None:
    folder = save(tmp_path, RobertaModel(RobertaConfig(**BASE | {"pad_token_id": padding})))
    assert Encoder(folder).max_seq_length == maximum


CORRECT = {**BASE, "model_type": "roberta"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"intermediate_size": None}, "field 'intermediate_size' is missing"),
        ({"pad_token_id": -1}, "field 'pad_token_id' is -1, expected an integer of at least 0"),
        ({"pad_token_id": "1"}, "field 'pad_token_id' is '1', expected an integer of at least 0"),
        ({"max_position_embeddings": 2}, "field 'max_position_embeddings' is 2, but the first token has row 2"),
        ({"pad_token_id": 139}, "field 'max_position_embeddings' is 140, but the first token has row 140"),
        ({"position_embedding_type": "relative_key"}, "field 'position_embedding_type' is 'relative_key'; only 'abs"),
        ({"num_attention_heads": 4}, "hidden_size 48 over num_attention_heads 4 gives no head size"),
    ],
)
@pytest.mark.parametrize("model_type", ["roberta", "xlm-roberta", "camembert"])
def test_config_errors(tmp_path: Path, model_type: str, changes: dict[str, Any], message: str) -> None:
    assert_refused(tmp_path, {**CORRECT, "model_type": model_type, **changes}, message)
