"""Mixtral and Qwen3-MoE."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    MixtralConfig,
    MixtralForCausalLM,
    MixtralModel,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    Qwen3MoeModel,
)

from longspan.checkpoint.config import read_json
from longspan.executors import cpu
from longspan.executors.smoothing import SampleWalk

from .harness import Peer, assert_refused, check, edit_config, encoder_of, save, texts_of
from .tiny import BASE, DYNAMIC, LINEAR, LLAMA3, LONG, YARN

LOADING = {"experts_implementation": "eager"}
"""The grouped products that transformers prefers do not take float64."""

MIXTRAL = BASE | {"num_local_experts": 4, "num_experts_per_tok": 2}
QWEN = BASE | {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24}

MIXTRALS: dict[str, dict[str, Any]] = {
    "plain": {},
    "one of eight": {"num_local_experts": 8, "num_experts_per_tok": 1, "head_dim": 40},
    "all of three": {"num_local_experts": 3, "num_experts_per_tok": 3, "num_key_value_heads": 1},
    "no head_dim": {"head_dim": None, "hidden_size": 64, "num_key_value_heads": 4, "intermediate_size": 33},
    "window": {"sliding_window": 7},
    "window of a text": {"sliding_window": 66, "num_hidden_layers": 2},
    "large window": {"sliding_window": 4096, "hidden_act": "gelu", "rms_norm_eps": 1e-3},
    "linear": {"rope_parameters": LINEAR},
    "yarn": {"rope_parameters": YARN},
    "llama3": {"rope_parameters": LLAMA3, "tie_word_embeddings": True},
    "dynamic": {"rope_parameters": DYNAMIC},
    "longrope": {"rope_parameters": LONG},
    "both sides": {"is_causal": False, "sliding_window": 7},
}


@pytest.mark.parametrize("name", MIXTRALS)
def test_mixtral(tmp_path: Path, name: str) -> None:
    check(save(tmp_path, MixtralModel(MixtralConfig(**MIXTRAL | MIXTRALS[name]))), Peer(MixtralModel, loading=LOADING))


QWENS: dict[str, dict[str, Any]] = {
    "plain": {},
    "normalised": {"norm_topk_prob": True, "num_experts_per_tok": 4},
    "dense layers": {"mlp_only_layers": [0, 2], "intermediate_size": 100},
    "every second layer": {"decoder_sparse_step": 2, "head_dim": 24},
    "dense alone": {"decoder_sparse_step": 5, "num_key_value_heads": 1},
    "biases": {"attention_bias": True, "num_key_value_heads": 4, "rms_norm_eps": 1e-3},
    "window": {"use_sliding_window": True, "sliding_window": 7},
    "unused window": {"use_sliding_window": False, "sliding_window": 7, "num_experts_per_tok": 6},
    "wide": {"moe_intermediate_size": 130, "num_experts": 3, "num_experts_per_tok": 1, "num_hidden_layers": 2},
    "dynamic": {"rope_parameters": DYNAMIC},
    "longrope": {"rope_parameters": LONG},
    "yarn": {"rope_parameters": YARN},
    "linear": {"rope_parameters": LINEAR},
    "llama3": {"rope_parameters": LLAMA3},
    "both sides": {"is_causal": False, "tie_word_embeddings": True},
}


@pytest.mark.parametrize("name", QWENS)
def test_qwen3_moe(tmp_path: Path, name: str) -> None:
    check(save(tmp_path, Qwen3MoeModel(Qwen3MoeConfig(**QWEN | QWENS[name]))), Peer(Qwen3MoeModel, loading=LOADING))


LANGUAGE: dict[str, Any] = {
    "mixtral": (MixtralForCausalLM, MixtralConfig(**MIXTRAL), MixtralModel),
    "qwen3_moe": (Qwen3MoeForCausalLM, Qwen3MoeConfig(**QWEN | {"mlp_only_layers": [1]}), Qwen3MoeModel),
}


@pytest.mark.parametrize("name", LANGUAGE)
def test_weights_of_a_language_model(tmp_path: Path, name: str) -> None:
    model, config, peer = LANGUAGE[name]
    check(save(tmp_path, model(config)), Peer(peer, loading=LOADING))


@pytest.mark.parametrize("name", LANGUAGE)
def test_fused_experts(tmp_path: Path, name: str) -> None:
    """All experts in two tensors are the same to the bit."""
    model, config, _ = LANGUAGE[name]
    folder = save(tmp_path, model(config))
    expected = encoder_of(folder, "generic").encode(texts_of())
    model.from_pretrained(str(folder)).save_pretrained(folder, save_original_format=False)
    assert "model.layers.0.mlp.experts.gate_up_proj" in load_file(folder / "model.safetensors")
    assert (encoder_of(folder, "generic").encode(texts_of()) == expected).all()


OUTLIER = 60


def with_outliers(folder: Path) -> Path:
    """A column of what experts read, and one of what they have inside, much larger; the function stays the same."""
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if "post_attention_layernorm" in name:
            tensor[5] *= OUTLIER
        elif ".mlp.gate." in name or "block_sparse_moe.gate." in name or re.search(r"\.(w1|gate_proj)\.", name):
            tensor[:, 5] /= OUTLIER
        elif re.search(r"\.(w3|up_proj)\.", name):
            tensor[:, 5] /= OUTLIER
            tensor[7] *= OUTLIER
        elif re.search(r"\.(w2|down_proj)\.", name):
            tensor[:, 7] /= OUTLIER
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def without_experts(watch: Callable[..., Sequence[Mapping[str, Any]]]) -> Callable[..., Sequence[Mapping[str, Any]]]:
    """What samples show, but for experts."""

    def some(*arguments: Any, **more: Any) -> Sequence[Mapping[str, Any]]:
        shown = watch(*arguments, **more)
        assert any(len(reach) > 1 for inputs in shown for reach in inputs.values())
        return [{field: reach for field, reach in inputs.items() if len(reach) == 1} for inputs in shown]

    return some


@pytest.fixture
def with_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sample texts of words that the tiny models know."""
    (tmp_path / "samples.txt").write_text("\n".join(texts_of([40] * 64)))
    monkeypatch.setattr("longspan.samples.TEXTS", tmp_path / "samples.txt")


def save_with_outliers(folder: Path, name: str) -> Path:
    model, config = {
        "mixtral": (MixtralModel, MixtralConfig(**MIXTRAL)),
        "qwen3_moe": (Qwen3MoeModel, Qwen3MoeConfig(**QWEN)),
    }[name]
    return with_outliers(save(folder, model(config)))


@pytest.mark.usefixtures("with_samples")
@pytest.mark.parametrize("name", LANGUAGE)
def test_experts_in_int8(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept by `save`, and the same from a file."""
    folder, texts = save_with_outliers(tmp_path / "model", name), texts_of()
    encoder = encoder_of(folder, "generic", weights="int8")
    found = encoder.encode(texts)
    encoder.save(tmp_path / "saved")
    assert encoder_of(tmp_path / "saved", "generic").encode(texts).tobytes() == found.tobytes()
    monkeypatch.setattr(cpu, "packed_bytes", lambda *_: 1 << 60)
    away = encoder_of(folder, "generic", weights="int8", memory=1 << 50)
    assert away.encode(texts).tobytes() == found.tobytes()


@pytest.mark.usefixtures("with_samples")
@pytest.mark.parametrize("name", LANGUAGE)
def test_samples_of_experts_in_int8(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They make them far more exact where columns differ.

    Over several random models: in a single one, a token that chooses another expert for either outweighs all rounding.
    """
    texts, folders = texts_of(), []
    for seed in range(6):
        torch.manual_seed(seed)
        folders.append(save_with_outliers(tmp_path / f"model {seed}", name))

    def in_int8() -> np.ndarray[Any, Any]:
        return np.stack([encoder_of(folder, "generic", weights="int8").encode(texts) for folder in folders])

    exact = np.stack([encoder_of(folder, "generic").encode(texts) for folder in folders])
    found = in_int8()
    monkeypatch.setattr(SampleWalk, "watch", without_experts(SampleWalk.watch))
    assert np.linalg.norm(found - exact) < 0.5 * np.linalg.norm(in_int8() - exact)


def test_older_name_of_the_number_of_experts(tmp_path: Path) -> None:
    folder = save(tmp_path, Qwen3MoeModel(Qwen3MoeConfig(**QWEN)))
    fields = read_json(folder / "config.json")
    fields["num_experts"] = fields.pop("num_local_experts")
    (folder / "config.json").write_text(json.dumps(fields))
    check(folder, Peer(Qwen3MoeModel, loading=LOADING))


def test_other_name_of_the_number_of_experts(tmp_path: Path) -> None:
    folder = save(tmp_path, MixtralModel(MixtralConfig(**MIXTRAL)))
    expected = encoder_of(folder, "generic").encode("a b c")
    edit_config(folder, num_local_experts=None, num_experts=4)
    assert (encoder_of(folder, "generic").encode("a b c") == expected).all()


def test_maximum(tmp_path: Path) -> None:
    assert encoder_of(save(tmp_path, MixtralModel(MixtralConfig(**MIXTRAL))), "generic").max_seq_length == 160


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (MIXTRAL | {"num_experts_per_tok": 5}, "field 'num_experts_per_tok' is 5, but 'num_local_experts' is 4"),
        (MIXTRAL | {"num_local_experts": "many"}, "field 'num_local_experts' is 'many', expected a positive integer"),
        (MIXTRAL | {"num_experts": 8}, "field 'num_experts' is 8, but 'num_local_experts' is 4"),
        (MIXTRAL | {"sliding_window": 0}, "field 'sliding_window' is 0, expected a positive integer"),
        (QWEN | {"num_experts_per_tok": 7}, "field 'num_experts_per_tok' is 7, but 'num_experts' is 6"),
        (QWEN | {"moe_intermediate_size": None}, "field 'moe_intermediate_size' is missing"),
        (QWEN | {"num_experts": None}, "field 'num_experts' is missing"),
        (QWEN | {"mlp_only_layers": [-1]}, "field 'mlp_only_layers' is [-1], expected a list of numbers of layers"),
        (QWEN | {"decoder_sparse_step": 0}, "field 'decoder_sparse_step' is 0, expected a positive integer"),
    ],
)
def test_config_errors(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    name = "qwen3_moe" if "moe_intermediate_size" in fields else "mixtral"
    assert_refused(tmp_path, fields | {"model_type": name}, message)
