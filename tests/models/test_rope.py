"""Rotary positions that a config says in several places, with transformers as the judge of which count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import Gemma3TextConfig, Gemma3TextModel, LlamaConfig, LlamaModel, ModernBertConfig, ModernBertModel

from longspan import CheckpointError, Encoder

from .harness import Peer, assert_refused, check_errors, edit_config, save, texts_of
from .tiny import BASE, ENCODER, LINEAR, LLAMA3

OLDER = {"rope_type": "linear", "factor": 4.0}


def without(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


@pytest.mark.parametrize(
    "fields",
    [
        {"original_max_position_embeddings": 20, "rope_scaling": without(LLAMA3, "rope_theta"), "rope_theta": 500.0},
        {"rope_scaling": without(LLAMA3, "rope_theta", "original_max_position_embeddings"), "rope_theta": 500.0},
        {"rope_scaling": LINEAR, "rope_parameters": LINEAR},
        {"rope_scaling": without(LINEAR, "rope_theta"), "rope_parameters": LINEAR, "rope_theta": 100.0},
    ],
    ids=["original positions of the model", "original positions left out", "twice the same", "with a base beside it"],
)
def test_llama(tmp_path: Path, fields: dict[str, Any]) -> None:
    folder = save(tmp_path, LlamaModel(LlamaConfig(**BASE)))
    edit_config(folder, **{"rope_parameters": None, **fields})
    check_errors(folder, Peer(LlamaModel), texts_of())


MODERN = ENCODER | {"num_hidden_layers": 4, "pad_token_id": 0}


@pytest.mark.parametrize(
    ("model", "config"),
    [(Gemma3TextModel, Gemma3TextConfig(**BASE)), (ModernBertModel, ModernBertConfig(**MODERN))],
    ids=["gemma3_text", "modernbert"],
)
def test_two_that_agree_by_type_of_layer(tmp_path: Path, model: Any, config: Any) -> None:
    """`rope_scaling` goes over what `rope_parameters` says of the layers it is for."""
    folder = save(tmp_path, model(config))
    both = {"full_attention": {**OLDER, "rope_theta": 1e3}, "sliding_attention": {**OLDER, "rope_theta": 1e2}}
    edit_config(folder, rope_parameters=both, rope_scaling=OLDER)
    check_errors(folder, Peer(model), texts_of())


@pytest.mark.parametrize(
    "older", [{"type": "linear", "factor": 8.0}, {"rope_type": "default"}, {**LINEAR, "factor": 2.0}]
)
def test_two_that_disagree(tmp_path: Path, older: dict[str, Any]) -> None:
    fields = BASE | {"model_type": "llama", "rope_parameters": LINEAR, "rope_scaling": older, "rope_theta": 100.0}
    assert_refused(tmp_path, fields, "field 'rope_scaling' says other positions than 'rope_parameters'")


@pytest.mark.parametrize("older", [{"type": "linear", "factor": 8.0}, {"rope_type": "linear", "factor": 8.0}])
def test_two_that_disagree_by_type_of_layer(tmp_path: Path, older: dict[str, Any]) -> None:
    folder = save(tmp_path, Gemma3TextModel(Gemma3TextConfig(**BASE)))
    edit_config(folder, rope_scaling=older)
    message = r"field 'rope_scaling' says other positions than 'rope_parameters\.full_attention'"
    with pytest.raises(CheckpointError, match=message):
        Encoder(folder)


@pytest.mark.parametrize("model_type", ["gemma3_text", "modernbert", "embedding_gemma2_text", "ultrabert"])
def test_no_type_of_layer(tmp_path: Path, model_type: str) -> None:
    """transformers takes no notice of such positions, or fails."""
    fields = BASE | {"model_type": model_type, "rope_parameters": LINEAR}
    assert_refused(tmp_path, fields, "field 'rope_parameters' has none of 'full_attention', 'sliding_attention'")
