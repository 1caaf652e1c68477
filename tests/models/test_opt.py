"""OPT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import OPTConfig, OPTForCausalLM, OPTModel

from .harness import VOCABULARY, Peer, assert_refused, check, encoder_of, save

BASE = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 48,
    "num_attention_heads": 3,
    "ffn_dim": 80,
    "num_hidden_layers": 3,
    "max_position_embeddings": 160,
    "init_std": 0.15,
    "pad_token_id": 1,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "norms behind": {"do_layer_norm_before": False, "num_attention_heads": 6},
    "narrow": {"do_layer_norm_before": False, "word_embed_proj_dim": 20},
    "narrow, norms before": {"word_embed_proj_dim": 24, "num_hidden_layers": 2},
    "wide": {"word_embed_proj_dim": 96, "activation_function": "gelu"},
    "no last norm": {"_remove_final_layer_norm": True, "num_attention_heads": 2},
    "no biases": {"enable_bias": False, "ffn_dim": 33},
    "norms without weights": {"layer_norm_elementwise_affine": False},
    "head size 40": {"hidden_size": 80, "num_attention_heads": 2, "max_position_embeddings": 133},
    "untied": {"tie_word_embeddings": False, "num_hidden_layers": 1},
    "both sides": {"is_causal": False},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_opt(tmp_path: Path, name: str) -> None:
    check(save(tmp_path, OPTModel(OPTConfig(**BASE | CONFIGS[name]))), Peer(OPTModel))


@pytest.mark.parametrize("name", ["plain", "narrow"])
def test_weights_of_a_language_model(tmp_path: Path, name: str) -> None:
    check(save(tmp_path, OPTForCausalLM(OPTConfig(**BASE | CONFIGS[name]))), Peer(OPTModel))


def test_sizes(tmp_path: Path) -> None:
    """Vectors are as wide as the words' embeddings; the two rows before the first position do not count."""
    encoder = encoder_of(save(tmp_path, OPTModel(OPTConfig(**BASE | CONFIGS["narrow"]))), "generic")
    assert (encoder.get_embedding_dimension(), encoder.max_seq_length) == (20, 160)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ffn_dim": None}, "field 'ffn_dim' is missing"),
        ({"num_attention_heads": 7}, "hidden_size 48 over num_attention_heads 7 gives no head size"),
        ({"word_embed_proj_dim": -1}, "field 'word_embed_proj_dim' is -1, expected a positive integer"),
        ({"do_layer_norm_before": 0}, "field 'do_layer_norm_before' is 0, expected true or false"),
    ],
)
def test_config_errors(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert_refused(tmp_path, BASE | {"model_type": "opt"} | changes, message)
