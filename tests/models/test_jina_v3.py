"""Jina v3: transformers' own, and the original code's fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import JinaEmbeddingsV3Config, JinaEmbeddingsV3ForMaskedLM, JinaEmbeddingsV3Model

from longspan import Encoder

from .harness import Peer, assert_refused, check, edit_config, save, texts_of
from .tiny import ENCODER, LLAMA3, LONG

BASE: dict[str, Any] = {
    **ENCODER,
    "type_vocab_size": 1,
    "initializer_range": 0.15,
    "layer_norm_eps": 1e-5,
}
WIDE = {"initializer_range": 0.05}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 40, "rope_theta": 1000.0}

CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "head size 8": {"hidden_size": 24, "intermediate_size": 17, "type_vocab_size": 2},
    "head size 40": {"hidden_size": 120, "hidden_act": "silu", "layer_norm_eps": 1e-3},
    "head size 64": {"hidden_size": 320, "num_attention_heads": 5, "num_hidden_layers": 1, **WIDE},
    "head size 128": {"hidden_size": 256, "num_attention_heads": 2, "hidden_act": "relu", **WIDE},
    "tanh": {"hidden_act": "gelu_pytorch_tanh", "num_hidden_layers": 4},
    "linear": {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0}},
    "dynamic": {
        "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 100.0},
        "max_position_embeddings": 140,
    },
    "yarn": {"rope_parameters": YARN},
    "llama3": {"rope_parameters": LLAMA3},
    "longrope": {"rope_parameters": LONG},
}


def saved(folder: Path) -> Path:
    """The same weights each time."""
    torch.manual_seed(1)
    config = JinaEmbeddingsV3Config(**BASE, rope_parameters={"rope_type": "default", "rope_theta": 300.0})
    return save(folder, JinaEmbeddingsV3Model(config))


@pytest.mark.parametrize("name", CONFIGS)
def test_fields_of_transformers(tmp_path: Path, name: str) -> None:
    """It saves the original code's tensor names."""
    folder = save(tmp_path, JinaEmbeddingsV3Model(JinaEmbeddingsV3Config(**BASE | CONFIGS[name])))
    assert "encoder.layers.0.mixer.Wqkv.weight" in load_file(folder / "model.safetensors")
    check(folder, Peer(JinaEmbeddingsV3Model))


@pytest.mark.parametrize("name", ["plain", "head size 8", "yarn"])
def test_tensor_names_of_transformers(tmp_path: Path, name: str) -> None:
    model = JinaEmbeddingsV3Model(JinaEmbeddingsV3Config(**BASE | CONFIGS[name]))
    folder = save(tmp_path, model, save_original_format=False)
    assert "layers.0.self_attn.q_proj.weight" in load_file(folder / "model.safetensors")
    check(folder, Peer(JinaEmbeddingsV3Model))


def test_weights_of_a_language_model(tmp_path: Path) -> None:
    folder = save(tmp_path, JinaEmbeddingsV3ForMaskedLM(JinaEmbeddingsV3Config(**BASE)), torch.bfloat16)
    assert "roberta.emb_ln.weight" in load_file(folder / "model.safetensors")
    check(folder, Peer(JinaEmbeddingsV3Model))


def as_original(folder: Path, **fields: Any) -> Path:
    """With the fields of the original code."""
    original = {"model_type": "xlm-roberta", "position_embedding_type": "rotary", "rotary_emb_base": 300.0}
    return edit_config(folder, rope_parameters=None, **{**original, **fields})


def test_fields_of_the_original_code(tmp_path: Path) -> None:
    """The same vectors as of the checkpoint with transformers' fields."""
    ours = saved(tmp_path / "ours")
    check(ours, Peer(JinaEmbeddingsV3Model))
    original = as_original(saved(tmp_path / "original"))
    vectors = [Encoder(folder).encode(texts_of()) for folder in (ours, original)]
    assert (vectors[0] == vectors[1]).all()


def test_the_usual_base_of_the_original_code(tmp_path: Path) -> None:
    given = as_original(saved(tmp_path / "given"), rotary_emb_base=10_000.0)
    usual = as_original(saved(tmp_path / "usual"), rotary_emb_base=None)
    vectors = [Encoder(folder).encode(texts_of()) for folder in (given, usual)]
    assert (vectors[0] == vectors[1]).all()


def test_maximum(tmp_path: Path) -> None:
    assert Encoder(saved(tmp_path)).max_seq_length == 160


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": None}, "field 'hidden_size' is missing"),
        ({"hidden_act": "mish"}, "field 'hidden_act' is 'mish'; known are gelu"),
        ({"type_vocab_size": -1}, "field 'type_vocab_size' is -1, expected an integer of at least 0"),
        ({"num_attention_heads": 5}, "hidden_size 48 over num_attention_heads 5 gives no head size"),
        ({"layer_norm_eps": "small"}, "field 'layer_norm_eps' is 'small', expected a number"),
    ],
)
@pytest.mark.parametrize("model_type", ["jina_embeddings_v3", "xlm-roberta"])
def test_config_errors(tmp_path: Path, model_type: str, changes: dict[str, Any], message: str) -> None:
    kind = {"model_type": model_type, "position_embedding_type": "rotary"}
    assert_refused(tmp_path, {**BASE, **kind, **changes}, message)


def test_a_base_that_is_no_number(tmp_path: Path) -> None:
    kind = {"model_type": "xlm-roberta", "position_embedding_type": "rotary", "rotary_emb_base": "big"}
    assert_refused(tmp_path, {**BASE, **kind}, "field 'rotary_emb_base' is 'big', expected a number")
