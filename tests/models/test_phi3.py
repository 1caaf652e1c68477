"""Phi-3 and Phi-4."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import Phi3Config, Phi3ForCausalLM, Phi3Model

from longspan.checkpoint.config import read_json

from .harness import Peer, assert_refused, check, encoder_of, save, texts_of
from .tiny import BASE, LONG

PLAIN = {name: value for name, value in BASE.items() if name != "head_dim"}


def long_of(pairs: int, **more: Any) -> dict[str, Any]:
    """LongRoPE of so many pairs, from 40 positions to 160."""
    factors = {"short_factor": [1.0 + 0.1 * i for i in range(pairs)], "long_factor": [2.0 + i for i in range(pairs)]}
    return {"rope_parameters": LONG | factors | more, "original_max_position_embeddings": 40}


CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {"hidden_size": 64},
    "heads of a size": {"head_dim": 24},
    "one kv head": {"hidden_size": 96, "num_key_value_heads": 1, "hidden_act": "gelu"},
    "no kv heads": {"hidden_size": 32, "num_key_value_heads": None, "intermediate_size": 33},
    "window": {"head_dim": 16, "sliding_window": 6},
    "window of a text": {"head_dim": 16, "sliding_window": 92},
    "large window": {"head_dim": 16, "sliding_window": 1000, "rms_norm_eps": 1e-3},
    "partial": {"hidden_size": 128, "rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.75}},
    "longrope": {"hidden_size": 64, **long_of(8)},
    "longrope, partial": {"hidden_size": 128, **long_of(12, partial_rotary_factor=0.75)},
    "longrope with a factor": {"hidden_size": 64, **long_of(8, factor=3.0)},
    "longrope with attention": {"hidden_size": 64, "sliding_window": 30, **long_of(8, attention_factor=1.3)},
    "tied": {"hidden_size": 64, "tie_word_embeddings": True, "num_hidden_layers": 1},
    "both sides": {"hidden_size": 64, "is_causal": False, "sliding_window": 9},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_phi3(tmp_path: Path, name: str) -> None:
    check(save(tmp_path, Phi3Model(Phi3Config(**PLAIN | CONFIGS[name]))), Peer(Phi3Model))


def test_weights_of_a_language_model(tmp_path: Path) -> None:
    folder = save(tmp_path, Phi3ForCausalLM(Phi3Config(**PLAIN | {"hidden_size": 64})))
    check(folder, Peer(Phi3Model))


def test_positions_of_older_configs(tmp_path: Path) -> None:
    """The first ones call LongRoPE "su", which transformers no longer loads."""
    folder = save(tmp_path, Phi3Model(Phi3Config(**PLAIN | {"hidden_size": 64} | long_of(8))))
    fields = read_json(folder / "config.json")
    given = fields.pop("rope_parameters")
    older = {"type": "longrope", "short_factor": given["short_factor"], "long_factor": given["long_factor"]}
    (folder / "config.json").write_text(json.dumps(fields | {"rope_theta": 500.0, "rope_scaling": older}))
    check(folder, Peer(Phi3Model))
    expected = encoder_of(folder, "generic").encode(texts_of())
    oldest = {"rope_theta": 500.0, "rope_scaling": older | {"type": "su"}}
    (folder / "config.json").write_text(json.dumps(fields | oldest))
    assert (encoder_of(folder, "generic").encode(texts_of()) == expected).all()


def test_maximum(tmp_path: Path) -> None:
    """All the positions that the checkpoint was stretched to."""
    folder = save(tmp_path, Phi3Model(Phi3Config(**PLAIN | {"hidden_size": 64} | long_of(8))))
    assert encoder_of(folder, "generic").max_seq_length == 160


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"intermediate_size": None}, "field 'intermediate_size' is missing"),
        ({"sliding_window": 0}, "field 'sliding_window' is 0, expected a positive integer"),
        ({"num_attention_heads": 5, "head_dim": None}, "hidden_size 48 over num_attention_heads 5 gives no head size"),
        ({"rope_scaling": {"type": "linear"}}, "field 'rope_scaling.type' is 'linear'; only 'default'"),
        (
            {"rope_scaling": {"type": "su", "short_factor": [1.0] * 7}},
            "field 'rope_scaling.short_factor' is not a list of 8 numbers",
        ),
        (
            {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 1.5}},
            "field 'rope_parameters.partial_rotary_factor' of 1.5 leaves 24 of 16 components to turn",
        ),
    ],
)
def test_config_errors(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert_refused(tmp_path, BASE | {"model_type": "phi3"} | changes, message)
