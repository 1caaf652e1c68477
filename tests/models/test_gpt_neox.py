"""GPT-NeoX and Pythia."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, GPTNeoXModel

from longspan.checkpoint.config import read_json

from .harness import Peer, add_tensors, assert_refused, check, encoder_of, save
from .tiny import BASE, DYNAMIC, LINEAR, LLAMA3, LONG, YARN

PLAIN = {name: value for name, value in BASE.items() if name not in ("head_dim", "num_key_value_heads")}


def turned(part: float, kind: dict[str, Any] | None = None) -> dict[str, Any]:
    """Positions for a part of each head."""
    return {
        "rope_parameters": {**(kind or {"rope_type": "default", "rope_theta": 100.0}), "partial_rotary_factor": part}
    }


CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {"hidden_size": 64},
    "in turn": {"hidden_size": 64, "use_parallel_residual": False},
    "all of a head": {"hidden_size": 64, **turned(1.0)},
    "half": {"num_attention_heads": 2, **turned(0.5)},
    "head size 8": {"num_attention_heads": 6, "num_hidden_layers": 2},
    "no biases": {"hidden_size": 64, "attention_bias": False, "hidden_act": "gelu_new", "layer_norm_eps": 1e-2},
    "one head": {"num_attention_heads": 1, "intermediate_size": 33, "tie_word_embeddings": True},
    "linear": {"hidden_size": 128, **turned(0.25, LINEAR)},
    "dynamic": {"hidden_size": 128, **turned(0.25, DYNAMIC)},
    "yarn": {"hidden_size": 128, **turned(0.75, YARN)},
    "llama3": {"hidden_size": 128, **turned(0.25, LLAMA3)},
    "longrope": {"hidden_size": 128, **turned(0.5, LONG)},
    "both sides": {"hidden_size": 64, "is_causal": False},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_gpt_neox(tmp_path: Path, name: str) -> None:
    check(save(tmp_path, GPTNeoXModel(GPTNeoXConfig(**PLAIN | CONFIGS[name]))), Peer(GPTNeoXModel))


def test_weights_of_a_language_model(tmp_path: Path) -> None:
    folder = save(tmp_path, GPTNeoXForCausalLM(GPTNeoXConfig(**PLAIN | {"hidden_size": 64})))
    check(folder, Peer(GPTNeoXModel))


def test_masks_of_older_checkpoints(tmp_path: Path) -> None:
    """They are stored beside the weights, and nobody's."""
    folder = save(tmp_path, GPTNeoXModel(GPTNeoXConfig(**PLAIN | {"hidden_size": 64})))
    masks = {
        "layers.0.attention.bias": torch.ones(1, 1, 160, 160),
        "layers.0.attention.masked_bias": torch.tensor(-1e4),
        "layers.0.attention.rotary_emb.inv_freq": torch.ones(2),
    }
    check(add_tensors(folder, masks), Peer(GPTNeoXModel))


def test_positions_of_older_configs(tmp_path: Path) -> None:
    folder = save(tmp_path, GPTNeoXModel(GPTNeoXConfig(**PLAIN | {"hidden_size": 64})))
    fields = read_json(folder / "config.json")
    del fields["rope_parameters"]
    (folder / "config.json").write_text(json.dumps(fields | {"rotary_pct": 0.5, "rotary_emb_base": 300}))
    check(folder, Peer(GPTNeoXModel))
    assert encoder_of(folder, "generic").max_seq_length == 160


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "hidden_size 48 over num_attention_heads 4 gives no head size that is a multiple of 8"),
        ({"hidden_size": 64, "rotary_pct": 0.1}, "field 'rotary_pct' of 0.1 leaves 1 of 16 components"),
        ({"hidden_size": 64, "use_parallel_residual": "yes"}, "field 'use_parallel_residual' is 'yes', expected true"),
        ({"hidden_size": 64, "intermediate_size": None}, "field 'intermediate_size' is missing"),
    ],
)
def test_config_errors(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert_refused(tmp_path, PLAIN | {"model_type": "gpt_neox"} | changes, message)
