"""Llama, Mistral, Qwen2 and Qwen3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    MistralConfig,
    MistralModel,
    Qwen2Config,
    Qwen2Model,
    Qwen3Config,
    Qwen3Model,
)

from longspan import Encoder, InputError
from longspan.models import build_body
from longspan.models.config import ModelConfig
from longspan.program.instructions import Attention

from .harness import Peer, check, check_errors, edit_config, ids_of, last_hidden_state, save, texts_of
from .tiny import BASE, DYNAMIC, LINEAR, LLAMA3, LONG, YARN

LLAMAS: dict[str, dict[str, Any]] = {
    "plain": {},
    "one kv head": {"num_key_value_heads": 1, "head_dim": 40},
    "no head_dim": {"head_dim": None, "hidden_size": 64, "num_key_value_heads": 4},
    "biases": {"attention_bias": True, "mlp_bias": True, "head_dim": 24},
    "tied": {"tie_word_embeddings": True, "rms_norm_eps": 1e-3, "hidden_act": "gelu_pytorch_tanh"},
    "linear": {"rope_parameters": LINEAR},
    "dynamic": {"rope_parameters": DYNAMIC},
    "yarn": {"rope_parameters": YARN},
    "yarn, not truncated": {"rope_parameters": {**YARN, "truncate": False, "mscale": 0.7, "mscale_all_dim": 0.4}},
    "llama3": {"rope_parameters": LLAMA3},
    "longrope": {"rope_parameters": LONG},
    "partial": {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5, "rope_theta": 100.0}},
}


@pytest.mark.parametrize("name", LLAMAS)
def test_llama(tmp_path: Path, name: str) -> None:
    check(save(tmp_path, LlamaModel(LlamaConfig(**BASE | LLAMAS[name]))), Peer(LlamaModel))


def test_weights_of_a_language_model(tmp_path: Path) -> None:
    check(save(tmp_path, LlamaForCausalLM(LlamaConfig(**BASE))), Peer(LlamaModel))


MISTRALS: dict[str, dict[str, Any]] = {
    "plain": {"sliding_window": None},
    "small window": {"sliding_window": 5},
    "window of a text": {"sliding_window": 66},
    "large window": {"sliding_window": 4096},
    "one token": {"sliding_window": 1},
    "head size 128": {"head_dim": 128, "sliding_window": 64},
    "head size 8": {"head_dim": 8, "sliding_window": 129},
    "one layer": {"num_hidden_layers": 1, "num_key_value_heads": 4},
    "linear": {"rope_parameters": LINEAR},
    "dynamic": {"rope_parameters": DYNAMIC},
    "yarn": {"rope_parameters": YARN},
    "llama3": {"rope_parameters": LLAMA3},
    "longrope": {"rope_parameters": LONG},
}


@pytest.mark.parametrize("name", MISTRALS)
def test_mistral(tmp_path: Path, name: str) -> None:
    check(save(tmp_path, MistralModel(MistralConfig(**BASE | MISTRALS[name]))), Peer(MistralModel))


QWENS: dict[str, dict[str, Any]] = {
    "plain": {},
    "windows from a layer on": {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1},
    "unused window": {"use_sliding_window": False, "sliding_window": 7},
    "layer types": {
        "use_sliding_window": True,
        "sliding_window": 20,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "both sides": {"is_causal": False},
    "both sides with windows": {
        "is_causal": False,
        "use_sliding_window": True,
        "sliding_window": 7,
        "max_window_layers": 1,
    },
    "heads": {"num_attention_heads": 6, "num_key_value_heads": 3, "hidden_size": 48, "head_dim": 32},
    "linear": {"rope_parameters": LINEAR},
    "dynamic": {"rope_parameters": DYNAMIC},
    "yarn": {"rope_parameters": YARN},
    "llama3": {"rope_parameters": LLAMA3},
    "longrope": {"rope_parameters": LONG},
    "tied": {"tie_word_embeddings": True, "num_hidden_layers": 2},
}


@pytest.mark.parametrize("name", QWENS)
def test_qwen2(tmp_path: Path, name: str) -> None:
    check(save(tmp_path, Qwen2Model(Qwen2Config(**BASE | QWENS[name]))), Peer(Qwen2Model))


def silent(folder: Path, *names: str) -> Path:
    """The checkpoint without these fields of its config."""
    return edit_config(folder, **dict.fromkeys(names))


@pytest.mark.parametrize(("model", "config"), [(Qwen2Model, Qwen2Config), (Qwen3Model, Qwen3Config)])
def test_windows_of_a_silent_config(tmp_path: Path, model: Any, config: Any) -> None:
    """The first 28 layers have none."""
    options = BASE | {"num_hidden_layers": 30, "use_sliding_window": True, "sliding_window": 5, "hidden_size": 16}
    folder = silent(save(tmp_path, model(config(**options))), "max_window_layers", "layer_types")
    check_errors(folder, Peer(model), texts_of())


def windows(folder: Path) -> list[int | None]:
    body = build_body(ModelConfig.read(folder / "config.json"))
    return [step.left for step in body.instructions if isinstance(step, Attention)]


def test_window_of_a_silent_config(tmp_path: Path) -> None:
    folder = save(tmp_path, MistralModel(MistralConfig(**BASE | {"sliding_window": None})))
    assert windows(folder) == [None] * 3
    assert windows(silent(folder, "sliding_window")) == [4095] * 3
    edit_config(folder, model_type="qwen2", use_sliding_window=True, max_window_layers=1)
    assert windows(folder) == [None, 4095, 4095]


@pytest.mark.parametrize("name", [*QWENS, "biases"])
def test_qwen3(tmp_path: Path, name: str) -> None:
    options = {"attention_bias": True} if name == "biases" else QWENS[name]
    check(save(tmp_path, Qwen3Model(Qwen3Config(**BASE | options))), Peer(Qwen3Model))


def test_dynamic_beyond_the_maximum(tmp_path: Path) -> None:
    """Frequencies of longer texts depend on their length alone, in transformers also on the texts before."""
    config = LlamaConfig(**{**BASE, "rope_parameters": DYNAMIC, "max_position_embeddings": 60})
    folder = save(tmp_path, LlamaModel(config))
    model = LlamaModel.from_pretrained(str(folder)).eval()
    encoder = Encoder(folder, max_seq_length=180, pooling="mean")
    assert Encoder(folder).max_seq_length == 60
    texts = texts_of((1, 57, 58, 59, 90, 131, 178))
    expected = []
    for text in texts:
        model.rotary_emb = type(model.rotary_emb)(config=config)
        with torch.inference_mode():
            expected.append(last_hidden_state(model, ids_of(text)[None])[0].mean(0).numpy())
    np.testing.assert_allclose(encoder.encode(texts), expected, atol=2e-5)
    with pytest.raises(InputError, match="max_seq_length is 181, expected an integer from 1 to 180"):
        Encoder(folder, max_seq_length=181)
