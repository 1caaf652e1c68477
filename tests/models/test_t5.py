"""The encoders of T5, mT5 and UMT5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    MT5Config,
    MT5EncoderModel,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
    UMT5Config,
    UMT5EncoderModel,
)

from longspan import Encoder

from .harness import VOCABULARY, Peer, assert_refused, check, check_errors, edit_config, edit_tensors, save, texts_of

BASE = {
    "vocab_size": len(VOCABULARY),
    "d_model": 48,
    "d_kv": 16,
    "num_heads": 3,
    "d_ff": 80,
    "num_layers": 3,
    "pad_token_id": 0,
    "eos_token_id": 3,
}

CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "head size 8": {"d_kv": 8, "d_ff": 17, "feed_forward_proj": "gated-gelu"},
    "head size 40": {"d_kv": 40, "num_heads": 1, "feed_forward_proj": "gelu"},
    "heads narrower than the layers": {"d_model": 50, "d_kv": 8, "num_heads": 2, "feed_forward_proj": "gated-silu"},
    "heads wider than the layers": {"d_model": 33, "d_kv": 64, "num_heads": 5, "d_ff": 515, "num_layers": 1},
    "head size 128": {"d_kv": 128, "num_heads": 1, "feed_forward_proj": "gelu_new", "layer_norm_epsilon": 1e-3},
    "few buckets": {"relative_attention_num_buckets": 4, "relative_attention_max_distance": 11},
    "odd buckets": {"relative_attention_num_buckets": 22, "relative_attention_max_distance": 37},
    "far": {"relative_attention_num_buckets": 64, "relative_attention_max_distance": 1000},
    "gated relu": {"feed_forward_proj": "gated-relu"},
    "tanh": {"feed_forward_proj": "gated-tanh"},
}
FAMILIES: dict[str, tuple[Any, Any]] = {
    "t5": (T5Config, T5EncoderModel),
    "mt5": (MT5Config, MT5EncoderModel),
    "umt5": (UMT5Config, UMT5EncoderModel),
}


def saved(folder: Path, model: Any, dtype: torch.dtype = torch.float32) -> Path:
    """With biases as great as the scores."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "relative_attention_bias" in name:
                parameter.copy_(torch.randn_like(parameter))
    return save(folder, model, dtype)


@pytest.mark.parametrize("name", CONFIGS)
def test_t5(tmp_path: Path, name: str) -> None:
    check(saved(tmp_path, T5EncoderModel(T5Config(**BASE | CONFIGS[name]))), Peer(T5EncoderModel))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("family", ["mt5", "umt5"])
def test_relatives(tmp_path: Path, family: str, name: str) -> None:
    make_config, model = FAMILIES[family]
    check(saved(tmp_path, model(make_config(**BASE | CONFIGS[name]))), Peer(model))


def test_beyond_the_last_bucket(tmp_path: Path) -> None:
    check(saved(tmp_path, T5EncoderModel(T5Config(**BASE))), Peer(T5EncoderModel), texts_of((600, 150, 1)))


def test_weights_of_the_whole_model(tmp_path: Path) -> None:
    """With its decoder, which is left out."""
    folder = saved(tmp_path, T5ForConditionalGeneration(T5Config(**BASE)), torch.bfloat16)
    assert "decoder.final_layer_norm.weight" in load_file(folder / "model.safetensors")
    check(folder, Peer(T5EncoderModel))


def test_embeddings_by_their_other_name(tmp_path: Path) -> None:
    folder = saved(tmp_path, T5EncoderModel(T5Config(**BASE)))
    edit_tensors(folder, lambda name: name.replace("shared.weight", "encoder.embed_tokens.weight"))
    check(folder, Peer(T5EncoderModel))


def test_other_names_of_fields(tmp_path: Path) -> None:
    """transformers takes them by the names that most models give them."""
    folder = saved(tmp_path, T5EncoderModel(T5Config(**BASE)))
    usual = {"d_model": "hidden_size", "d_kv": "head_dim", "num_heads": "num_attention_heads"}
    usual["num_layers"] = "num_hidden_layers"
    edit_config(folder, **dict.fromkeys(usual), **{other: BASE[name] for name, other in usual.items()})
    check_errors(folder, Peer(T5EncoderModel), texts_of())


def test_no_maximum(tmp_path: Path) -> None:
    assert Encoder(saved(tmp_path, T5EncoderModel(T5Config(**BASE)))).max_seq_length == 1_000_000
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 512}')
    assert Encoder(tmp_path).max_seq_length == 512


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": None}, "field 'd_model' is missing"),
        ({"num_layers": 0}, "field 'num_layers' is 0, expected a positive integer"),
        ({"d_kv": 20}, "field 'd_kv' is 20, expected a multiple of 8 up to 512"),
        ({"feed_forward_proj": "gated-mish"}, "field 'feed_forward_proj' is 'gated-mish'; known are gelu"),
        ({"is_gated_act": True}, "field 'is_gated_act' is True; only False"),
        ({"is_decoder": True}, "field 'is_decoder' is True; only False"),
        ({"relative_attention_num_buckets": 7}, "field 'relative_attention_num_buckets' is 7, expected an even"),
        ({"relative_attention_max_distance": 8}, "field 'relative_attention_max_distance' is 8, but 32 buckets hold"),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_config_errors(tmp_path: Path, family: str, changes: dict[str, Any], message: str) -> None:
    assert_refused(tmp_path, {**BASE, "model_type": family, "feed_forward_proj": "relu", **changes}, message)
