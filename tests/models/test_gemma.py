"""Gemma 1 to 3 and EmbeddingGemma."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma2Model,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3Model,
    Gemma3TextConfig,
    Gemma3TextModel,
    GemmaConfig,
    GemmaModel,
)

from longspan.checkpoint.config import read_json
from longspan.models import build_body
from longspan.models.config import ModelConfig
from longspan.program.instructions import Attention

from .harness import Peer, assert_refused, check, check_errors, encoder_of, save, texts_of
from .tiny import BASE, DYNAMIC, LINEAR, LLAMA3, LONG, YARN

GEMMAS: dict[str, dict[str, Any]] = {
    "plain": {"head_dim": 24},
    "legacy activation": {"hidden_act": "gelu", "num_key_value_heads": 4},
    "biases": {"attention_bias": True, "hidden_act": "silu", "rms_norm_eps": 1e-3},
    "both sides": {"is_causal": False, "rope_parameters": LINEAR, "tie_word_embeddings": False},
    "one kv head": {"num_key_value_heads": 1, "num_hidden_layers": 1},
    "head size 8": {"head_dim": 8, "num_attention_heads": 6, "intermediate_size": 17},
    "head size 256": {"head_dim": 256, "num_attention_heads": 1, "num_key_value_heads": 1, "hidden_size": 72},
    "dynamic": {"rope_parameters": DYNAMIC, "num_hidden_layers": 2},
    "yarn": {"rope_parameters": YARN},
    "llama3": {"rope_parameters": LLAMA3, "rms_norm_eps": 0.1},
    "longrope": {"rope_parameters": LONG},
}


@pytest.mark.parametrize("name", GEMMAS)
def test_gemma(tmp_path: Path, name: str) -> None:
    check(save(tmp_path, GemmaModel(GemmaConfig(**BASE | GEMMAS[name]))), Peer(GemmaModel))


GEMMA2S: dict[str, dict[str, Any]] = {
    "plain": {},
    "small window": {"sliding_window": 5, "query_pre_attn_scalar": 100},
    "window of one": {"sliding_window": 1, "attn_logit_softcapping": 0.5},
    "no cap": {"attn_logit_softcapping": None, "head_dim": 40, "num_key_value_heads": 1},
    "strong cap": {"attn_logit_softcapping": 0.2, "num_key_value_heads": 4, "head_dim": 8},
    "layer types": {"layer_types": ["full_attention", "full_attention", "sliding_attention"], "sliding_window": 30},
    "biases": {"attention_bias": True, "hidden_activation": "silu", "sliding_window": 66},
    "both sides": {"is_causal": False, "sliding_window": 7},
    "head size 256": {"head_dim": 256, "num_hidden_layers": 2, "sliding_window": 64},
    "linear": {"rope_parameters": LINEAR, "rms_norm_eps": 1e-3},
    "yarn": {"rope_parameters": YARN, "tie_word_embeddings": False},
    "dynamic": {"rope_parameters": DYNAMIC},
    "llama3": {"rope_parameters": LLAMA3},
    "longrope": {"rope_parameters": LONG},
}


@pytest.mark.parametrize("name", GEMMA2S)
def test_gemma2(tmp_path: Path, name: str) -> None:
    check(save(tmp_path, Gemma2Model(Gemma2Config(**BASE | GEMMA2S[name]))), Peer(Gemma2Model))


def test_weights_of_a_language_model(tmp_path: Path) -> None:
    check(save(tmp_path, Gemma2ForCausalLM(Gemma2Config(**BASE))), Peer(Gemma2Model))


def per_type(full: dict[str, Any], sliding: dict[str, Any] | None = None) -> dict[str, Any]:
    """Rotary positions by the type of layer; every second layer sees all."""
    types = ["sliding_attention", "full_attention", "sliding_attention"]
    parameters = {"full_attention": full, "sliding_attention": sliding or {"rope_type": "default", "rope_theta": 30.0}}
    return {"rope_parameters": parameters, "layer_types": types, "sliding_window": 11}


GEMMA3S: dict[str, dict[str, Any]] = {
    "plain": {},
    "old pattern": {
        "sliding_window_pattern": 2,
        "sliding_window": 5,
        "rope_theta": 500.0,
        "rope_local_base_freq": 50.0,
    },
    "linear": per_type(LINEAR),
    "linear on both": per_type({"rope_type": "default", "rope_theta": 1000.0}, LINEAR),
    "dynamic": per_type(DYNAMIC),
    "yarn": per_type(YARN),
    "llama3": per_type(LLAMA3),
    "longrope": per_type(LONG),
    "heads": {"num_key_value_heads": 1, "head_dim": 72, "query_pre_attn_scalar": 33, "sliding_window_pattern": 3},
    "biases": {"attention_bias": True, "num_key_value_heads": 4, "hidden_activation": "gelu"},
    "both sides": {"is_causal": False, "sliding_window": 7, "sliding_window_pattern": 3},
    "embedding": {"use_bidirectional_attention": True, "sliding_window": 8, "sliding_window_pattern": 2},
    "embedding, odd window": {"use_bidirectional_attention": True, "sliding_window": 21, "sliding_window_pattern": 3},
    "embedding, twice said": {"use_bidirectional_attention": True, "is_causal": False, "sliding_window": 8},
    "embedding, window of a text": {"use_bidirectional_attention": True, "sliding_window": 132},
}


@pytest.mark.parametrize("name", GEMMA3S)
def test_gemma3_text(tmp_path: Path, name: str) -> None:
    check(save(tmp_path, Gemma3TextModel(Gemma3TextConfig(**BASE | GEMMA3S[name]))), Peer(Gemma3TextModel))


def test_positions_of_older_configs(tmp_path: Path) -> None:
    """Before rope_parameters, `rope_scaling` was for the layers that see all."""
    options = {"sliding_window_pattern": 2, "sliding_window": 9}
    folder = save(tmp_path, Gemma3TextModel(Gemma3TextConfig(**BASE | options)))
    fields = read_json(folder / "config.json")
    del fields["rope_parameters"]
    older = {"rope_theta": 700.0, "rope_local_base_freq": 20.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    (folder / "config.json").write_text(json.dumps(fields | older))
    check(folder, Peer(Gemma3TextModel))


def config_with_images(**text: Any) -> Gemma3Config:
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return Gemma3Config(
        text_config=BASE | text,
        vision_config={"model_type": "siglip_vision_model", **vision, "image_size": 28, "patch_size": 14},
        mm_tokens_per_image=1,
        image_token_index=5,
    )


@pytest.mark.parametrize("model", [Gemma3Model, Gemma3ForConditionalGeneration])
def test_text_of_a_model_of_images(tmp_path: Path, model: Any) -> None:
    folder = save(tmp_path, model(config_with_images(sliding_window=5, sliding_window_pattern=2)))
    check(folder, Peer(Gemma3Model))


WRAPPED: dict[str, dict[str, Any]] = {
    "plain": {},
    "no windows": {"sliding_window_pattern": 1, "num_key_value_heads": 1},
    "window of one": {"sliding_window": 1, "head_dim": 40},
    "biases": {"attention_bias": True, "num_key_value_heads": 4, "hidden_activation": "silu"},
    "both sides": {"is_causal": False, "sliding_window": 7, "sliding_window_pattern": 3},
    "linear": per_type(LINEAR),
    "llama3": per_type(LLAMA3),
    "longrope": per_type(LONG),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_configurations_of_a_model_of_images(tmp_path: Path, name: str) -> None:
    check(save(tmp_path, Gemma3Model(config_with_images(**WRAPPED[name]))), Peer(Gemma3Model))


def test_both_sides_of_a_model_of_images(tmp_path: Path) -> None:
    """As transformers' usual attention has it, but for texts longer than a window."""
    folder = save(tmp_path, Gemma3Model(config_with_images(use_bidirectional_attention=True)))
    check_errors(folder, Peer(Gemma3Model, kind="sdpa"), texts_of())


@pytest.mark.parametrize("prefix", ["language_model.", "model.language_model."])
def test_other_names_of_a_model_of_images(tmp_path: Path, prefix: str) -> None:
    folder = save(tmp_path, Gemma3Model(config_with_images()))
    tensors = load_file(folder / "model.safetensors")
    renamed = {name.replace("language_model.model.", prefix): tensor for name, tensor in tensors.items()}
    assert f"{prefix}norm.weight" in renamed
    expected = encoder_of(folder, "generic").encode("a b c")
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    assert (encoder_of(folder, "generic").encode("a b c") == expected).all()


def test_maximum(tmp_path: Path) -> None:
    assert encoder_of(save(tmp_path, Gemma3Model(config_with_images())), "generic").max_seq_length == 160


def test_a_config_without_what_has_defaults(tmp_path: Path) -> None:
    """Published configs of Gemma 3 hold the text model's differences from the defaults only."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "gemma3", "text_config": {"hidden_size": 2560, "sliding_window": 1024}}))
    body = build_body(ModelConfig.read(path))
    attention = [step for step in body.instructions if isinstance(step, Attention)]
    assert [step.left for step in attention[4:7]] == [1023, None, 1023]
    assert {(step.heads, step.kv_heads, step.head_size) for step in attention} == {(8, 4, 256)}
    assert (len(attention), body.max_positions) == (26, 131072)


@pytest.mark.parametrize("name", ["GemmaBiModel", "GemmaBiForMNTP"])
def test_both_sides_by_architecture(tmp_path: Path, name: str) -> None:
    path = tmp_path / "config.json"
    fields = BASE | {"model_type": "gemma", "architectures": [name]}
    assert {
        step.right for step in build_body(ModelConfig(path, fields)).instructions if isinstance(step, Attention)
    } == {None}


@pytest.mark.parametrize(
    ("model_type", "changes", "message"),
    [
        ("gemma2", {"sliding_window": "wide"}, "field 'sliding_window' is 'wide', expected a positive integer"),
        ("gemma2", {"query_pre_attn_scalar": -1}, "field 'query_pre_attn_scalar' is -1"),
        ("gemma2", {"layer_types": ["full_attention"]}, "field 'layer_types' is not a list of 3 of 'full_attention'"),
        ("gemma2", {"use_bidirectional_attention": True}, "field 'use_bidirectional_attention' is True; only False"),
        ("gemma2", {"hidden_size": None}, "field 'hidden_size' is missing"),
        ("gemma3_text", {"num_key_value_heads": 3}, "field 'num_key_value_heads' is 3, which does not divide 4 heads"),
        ("gemma3_text", {"sliding_window_pattern": 0}, "field 'sliding_window_pattern' is 0"),
        (
            "gemma3_text",
            {"rope_parameters": {"full_attention": {"rope_type": "linear"}}},
            "field 'rope_parameters.full_attention.factor' is missing",
        ),
        ("gemma3", {"text_config": {"head_dim": 20}}, "field 'text_config.head_dim' is 20, expected a multiple of 8"),
        ("gemma3", {"text_config": [1]}, "field 'text_config' is [1], expected an object"),
    ],
)
def test_config_errors(tmp_path: Path, model_type: str, changes: dict[str, Any], message: str) -> None:
    assert_refused(tmp_path, BASE | {"model_type": model_type} | changes, message)
