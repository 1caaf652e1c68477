"""GPT-2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model

from .harness import (
    VOCABULARY,
    Peer,
    add_tensors,
    assert_refused,
    check,
    check_errors,
    edit_config,
    encoder_of,
    save,
    texts_of,
)

BASE = {
    "vocab_size": len(VOCABULARY),
    "n_embd": 48,
    "n_head": 3,
    "n_layer": 3,
    "n_positions": 160,
    "initializer_range": 0.15,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "inner": {"n_inner": 33, "n_head": 2},
    "head size 8": {"n_head": 6, "activation_function": "relu"},
    "head size 64": {"n_embd": 128, "n_head": 2, "n_layer": 2},
    "unscaled": {"scale_attn_weights": False},
    "scaled by layer": {"scale_attn_by_inverse_layer_idx": True, "activation_function": "gelu"},
    "by layer alone": {"scale_attn_by_inverse_layer_idx": True, "scale_attn_weights": False},
    "eps": {"layer_norm_epsilon": 1e-2, "n_layer": 1, "n_positions": 133},
    "both sides": {"is_causal": False},
    "untied": {"tie_word_embeddings": False, "n_inner": 100},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_gpt2(tmp_path: Path, name: str) -> None:
    check(save(tmp_path, GPT2Model(GPT2Config(**BASE | CONFIGS[name]))), Peer(GPT2Model))


def test_weights_of_a_language_model(tmp_path: Path) -> None:
    check(save(tmp_path, GPT2LMHeadModel(GPT2Config(**BASE))), Peer(GPT2Model))


def test_masks_of_older_checkpoints(tmp_path: Path) -> None:
    """They are stored beside the weights, and nobody's."""
    folder = save(tmp_path, GPT2Model(GPT2Config(**BASE)))
    masks = {"h.0.attn.bias": torch.ones(1, 1, 160, 160), "h.0.attn.masked_bias": torch.tensor(-1e4)}
    check(add_tensors(folder, masks), Peer(GPT2Model))


def test_other_names(tmp_path: Path) -> None:
    """transformers takes the fields by the names that most models give them."""
    folder = save(tmp_path, GPT2Model(GPT2Config(**BASE)))
    expected = encoder_of(folder, "generic").encode("a b c")
    usual = {"hidden_size": 48, "num_attention_heads": 3, "num_hidden_layers": 3, "max_position_embeddings": 160}
    edit_config(folder, n_embd=None, n_head=None, n_layer=None, n_positions=None, **usual)
    check_errors(folder, Peer(GPT2Model), texts_of())
    assert (encoder_of(folder, "generic").encode("a b c") == expected).all()


def test_maximum(tmp_path: Path) -> None:
    assert encoder_of(save(tmp_path, GPT2Model(GPT2Config(**BASE))), "generic").max_seq_length == 160


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_embd": None}, "field 'n_embd' is missing"),
        ({"n_head": 5}, "n_embd 48 over n_head 5 gives no head size that is a multiple of 8"),
        ({"n_head": 4}, "n_embd 48 over n_head 4 gives no head size that is a multiple of 8"),
        ({"hidden_size": 64}, "field 'hidden_size' is 64, but 'n_embd' is 48"),
        ({"n_inner": "four"}, "field 'n_inner' is 'four', expected a positive integer"),
        ({"activation_function": "gelu2"}, "field 'activation_function' is 'gelu2'; known are gelu,"),
    ],
)
def test_config_errors(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert_refused(tmp_path, BASE | {"model_type": "gpt2"} | changes, message)
