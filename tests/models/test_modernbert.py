"""ModernBERT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import ModernBertConfig, ModernBertForMaskedLM, ModernBertModel

from longspan import Encoder

from .harness import VOCABULARY, Peer, assert_refused, check, check_errors, edit_config, save, texts_of
from .tiny import LLAMA3, LONG

BASE = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 48,
    "num_attention_heads": 3,
    "intermediate_size": 80,
    "num_hidden_layers": 4,
    "local_attention": 16,
    "max_position_embeddings": 160,
    "initializer_range": 0.15,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "cls_token_id": 2,
    "sep_token_id": 3,
}
FULL, SLIDING = "full_attention", "sliding_attention"
PLAIN = {"rope_type": "default", "rope_theta": 500.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 40, "rope_theta": 1000.0}

CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "head size 8": {"hidden_size": 24, "intermediate_size": 17, "local_attention": 3},
    "head size 40": {"hidden_size": 120, "hidden_activation": "silu", "norm_eps": 1e-3},
    "head size 64": {"hidden_size": 320, "num_attention_heads": 5, "intermediate_size": 515, "num_hidden_layers": 1},
    "head size 128": {"hidden_size": 128, "num_attention_heads": 1, "hidden_activation": "gelu_pytorch_tanh"},
    "all biases": {"attention_bias": True, "mlp_bias": True, "norm_bias": True},
    "some biases": {"mlp_bias": True, "hidden_activation": "relu"},
    "window of one": {"local_attention": 1},
    "window beyond the texts": {"local_attention": 600},
    "layer types": {"layer_types": [SLIDING, SLIDING, FULL, SLIDING]},
    "linear": {"rope_parameters": {FULL: {"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0}, SLIDING: PLAIN}},
    "dynamic": {
        "rope_parameters": {FULL: {"rope_type": "dynamic", "factor": 3.0, "rope_theta": 100.0}, SLIDING: PLAIN},
        "max_position_embeddings": 140,
    },
    "yarn": {"rope_parameters": {FULL: YARN, SLIDING: PLAIN}},
    "llama3": {"rope_parameters": {FULL: LLAMA3, SLIDING: PLAIN}},
    "longrope": {"rope_parameters": {FULL: LONG, SLIDING: LLAMA3}},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_modernbert(tmp_path: Path, name: str) -> None:
    check(save(tmp_path, ModernBertModel(ModernBertConfig(**BASE | CONFIGS[name]))), Peer(ModernBertModel))


def test_older_configs(tmp_path: Path) -> None:
    """Those published with the model: a period instead of layer types, a field for each base."""
    folder = save(tmp_path, ModernBertModel(ModernBertConfig(**BASE)))
    fields = {"layer_types": None, "rope_parameters": None, "global_rope_theta": 300.0, "local_rope_theta": 50.0}
    edit_config(folder, global_attn_every_n_layers=2, **fields)
    check(folder, Peer(ModernBertModel))


def test_half_of_the_window(tmp_path: Path) -> None:
    """`sliding_window` is another name of half of `local_attention`."""
    folder = save(tmp_path, ModernBertModel(ModernBertConfig(**BASE)))
    edit_config(folder, local_attention=None, sliding_window=5)
    check_errors(folder, Peer(ModernBertModel), texts_of())


def test_weights_of_a_language_model(tmp_path: Path) -> None:
    folder = save(tmp_path, ModernBertForMaskedLM(ModernBertConfig(**BASE)), torch.bfloat16)
    assert "model.embeddings.tok_embeddings.weight" in load_file(folder / "model.safetensors")
    check(folder, Peer(ModernBertModel))


def test_maximum(tmp_path: Path) -> None:
    assert Encoder(save(tmp_path, ModernBertModel(ModernBertConfig(**BASE)))).max_seq_length == 160


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": None}, "field 'hidden_size' is missing"),
        ({"local_attention": -1}, "field 'local_attention' is -1, expected a positive integer"),
        (
            {"local_attention": 20, "sliding_window": 20},
            "field 'sliding_window' is 20, but half of 'local_attention' is",
        ),
        ({"layer_types": [FULL, SLIDING]}, "field 'layer_types' is not a list of 4 of 'full_attention', 'sliding"),
        ({"layer_types": [FULL, SLIDING, "linear", FULL]}, "field 'layer_types' is not a list of 4 of"),
        ({"attention_bias": 1}, "field 'attention_bias' is 1, expected true or false"),
        ({"global_rope_theta": "big"}, "field 'global_rope_theta' is 'big', expected a number"),
        ({"rope_parameters": {FULL: {"rope_type": "ntk2"}}}, "field 'rope_parameters.full_attention.rope_type' is"),
    ],
)
def test_config_errors(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert_refused(tmp_path, {**BASE, "model_type": "modernbert", **changes}, message)
