"""Ministral and Ministral 3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import (
    Ministral3Config,
    Ministral3ForCausalLM,
    Ministral3Model,
    MinistralConfig,
    MinistralForCausalLM,
    MinistralModel,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    Mistral3Model,
)

from .harness import Peer, assert_refused, check, edit_config, encoder_of, save, texts_of
from .tiny import BASE, DYNAMIC, LINEAR, LLAMA3, LONG, YARN

MINISTRALS: dict[str, dict[str, Any]] = {
    "plain": {"sliding_window": 4096},
    "small window": {"sliding_window": 5, "num_key_value_heads": 4},
    "window of one": {"sliding_window": 1, "head_dim": 40},
    "layer types": {
        "sliding_window": 20,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "num_key_value_heads": 1,
    },
    "window of a text": {"sliding_window": 66, "head_dim": 8, "hidden_size": 64},
    "linear": {"sliding_window": 64, "rope_parameters": LINEAR, "rms_norm_eps": 1e-3},
    "dynamic": {"sliding_window": 129, "rope_parameters": DYNAMIC, "tie_word_embeddings": True},
    "yarn": {"sliding_window": 30, "rope_parameters": YARN},
    "llama3": {"sliding_window": 30, "rope_parameters": LLAMA3, "num_hidden_layers": 1},
    "longrope": {"sliding_window": 30, "rope_parameters": LONG, "intermediate_size": 33},
    "both sides": {"sliding_window": 7, "is_causal": False},
}


@pytest.mark.parametrize("name", MINISTRALS)
def test_ministral(tmp_path: Path, name: str) -> None:
    check(save(tmp_path, MinistralModel(MinistralConfig(**BASE | MINISTRALS[name]))), Peer(MinistralModel))


def scaled(beta: float, original: int, **more: Any) -> dict[str, Any]:
    """YaRN, with queries that grow every so many positions."""
    kind = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1000.0, "mscale": 1.0, "mscale_all_dim": 1.0}
    growing = {"original_max_position_embeddings": original, "llama_4_scaling_beta": beta}
    return {"rope_parameters": kind | growing | more}


GROWING = {"llama_4_scaling_beta": 0.1, "original_max_position_embeddings": 40}
MINISTRAL3S: dict[str, dict[str, Any]] = {
    "published defaults": {},
    "growing queries": scaled(0.1, 40),
    "fast": {**scaled(0.9, 7), "num_key_value_heads": 1, "head_dim": 40},
    "every position": {**scaled(0.3, 2), "num_key_value_heads": 4},
    "no growth": {**scaled(0.0, 40), "num_hidden_layers": 1},
    "window": {**scaled(0.2, 20), "sliding_window": 6},
    "window of a text": {**scaled(0.2, 20), "sliding_window": 92, "rms_norm_eps": 1e-3},
    "other ramp": scaled(0.1, 40, beta_fast=8.0, beta_slow=2.0, mscale=0.7, mscale_all_dim=0.4),
    "without YaRN": {
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 100.0,
            "llama_4_scaling_beta": 0.2,
            "original_max_position_embeddings": 16,
        }
    },
    "linear": {"rope_parameters": GROWING | LINEAR},
    "dynamic": {"rope_parameters": GROWING | DYNAMIC},
    "llama3": {"rope_parameters": GROWING | LLAMA3},
    "longrope": {"rope_parameters": GROWING | LONG},
    "tied": {**scaled(0.1, 40), "tie_word_embeddings": True, "hidden_act": "gelu"},
    "both sides": {**scaled(0.1, 40), "is_causal": False},
    "both sides with windows": {**scaled(0.1, 40), "is_causal": False, "sliding_window": 7},
}


@pytest.mark.parametrize("name", MINISTRAL3S)
def test_ministral3(tmp_path: Path, name: str) -> None:
    check(save(tmp_path, Ministral3Model(Ministral3Config(**BASE | MINISTRAL3S[name]))), Peer(Ministral3Model))


def test_ministral3_without_what_has_defaults(tmp_path: Path) -> None:
    options = {"head_dim": 128, "num_attention_heads": 8, "num_key_value_heads": 8, "num_hidden_layers": 2}
    folder = save(tmp_path, Ministral3Model(Ministral3Config(**BASE | options)))
    silent = ("head_dim", "num_key_value_heads", "rope_parameters", "max_position_embeddings", "rms_norm_eps")
    edit_config(folder, **dict.fromkeys(silent))
    check(folder, Peer(Ministral3Model), texts_of((0, 1, 50)))
    assert encoder_of(folder, "generic").max_seq_length == 262144


LANGUAGE: dict[str, Any] = {
    "ministral": (MinistralForCausalLM, MinistralConfig(**BASE), MinistralModel),
    "ministral3": (Ministral3ForCausalLM, Ministral3Config(**BASE), Ministral3Model),
}


@pytest.mark.parametrize("name", LANGUAGE)
def test_weights_of_a_language_model(tmp_path: Path, name: str) -> None:
    model, config, peer = LANGUAGE[name]
    check(save(tmp_path, model(config)), Peer(peer))


def config_with_images(kind: str, **text: Any) -> Mistral3Config:
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return Mistral3Config(
        text_config={"model_type": kind} | BASE | text,
        vision_config={"model_type": "pixtral", **vision, "head_dim": 8, "image_size": 28, "patch_size": 14},
        image_token_index=5,
    )


@pytest.mark.parametrize("kind", ["mistral", "ministral3"])
@pytest.mark.parametrize("model", [Mistral3Model, Mistral3ForConditionalGeneration])
def test_text_of_a_model_of_images(tmp_path: Path, kind: str, model: Any) -> None:
    folder = save(tmp_path, model(config_with_images(kind, sliding_window=20)))
    check(folder, Peer(Mistral3Model))
    assert encoder_of(folder, "generic").max_seq_length == 160


WRAPPED: dict[str, tuple[str, dict[str, Any]]] = {
    "one kv head": ("mistral", {"num_key_value_heads": 1, "sliding_window": None}),
    "wide heads": ("mistral", {"head_dim": 40, "sliding_window": 1}),
    "linear": ("mistral", {"rope_parameters": LINEAR}),
    "llama3": ("mistral", {"rope_parameters": LLAMA3, "num_hidden_layers": 1}),
    "growing queries": ("ministral3", scaled(0.1, 40)),
    "window": ("ministral3", {**scaled(0.2, 20), "sliding_window": 6}),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_configurations_of_a_model_of_images(tmp_path: Path, name: str) -> None:
    kind, options = WRAPPED[name]
    check(save(tmp_path, Mistral3Model(config_with_images(kind, **options))), Peer(Mistral3Model))


def test_both_sides_of_a_model_of_images(tmp_path: Path) -> None:
    folder = save(tmp_path, Mistral3Model(config_with_images("ministral3", is_causal=False)))
    check(folder, Peer(Mistral3Model))


@pytest.mark.parametrize(
    ("model_type", "changes", "message"),
    [
        ("ministral", {"layer_types": ["sliding_attention"]}, "field 'layer_types' is not a list of 3 of"),
        ("ministral", {"sliding_window": -4}, "field 'sliding_window' is -4, expected a positive integer"),
        ("ministral", {"num_key_value_heads": 3}, "field 'num_key_value_heads' is 3, which does not divide 4 heads"),
        ("ministral3", {"rope_parameters": {"rope_type": "yarn", "llama_4_scaling_beta": "much"}}, "field 'rope_param"),
        (
            "ministral3",
            {"rope_parameters": {"rope_type": "default", "llama_4_scaling_beta": 0.1}},
            "field 'rope_parameters.original_max_position_embeddings' is missing",
        ),
        ("ministral3", {"num_attention_heads": None}, "field 'num_attention_heads' is missing"),
        ("mistral3", {"text_config": {"model_type": "qwen2"}}, "field 'text_config.model_type' is 'qwen2'; known are"),
    ],
)
def test_config_errors(tmp_path: Path, model_type: str, changes: dict[str, Any], message: str) -> None:
    assert_refused(tmp_path, BASE | {"model_type": model_type} | changes, message)
