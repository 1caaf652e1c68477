"""Configs with wrong fields: whatever stands in them, they are read, or the file and a field are named."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    BertConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MixtralConfig,
    ModernBertConfig,
    NomicBertConfig,
    OPTConfig,
    Phi3Config,
    Qwen3Config,
    SmolLM3Config,
    T5Config,
)

from longspan import CheckpointError
from longspan.models import build_body
from longspan.models.config import MOST_OF_THEM, ModelConfig

from .tiny import BASE, DYNAMIC, ENCODER, LINEAR, LLAMA3, LONG, YARN

PATH = Path("config.json")
MODELS: list[dict[str, Any]] = [
    json.loads(json.dumps(config.to_dict()))
    for config in (
        BertConfig(**ENCODER),
        ModernBertConfig(**ENCODER, pad_token_id=0, bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3),
        NomicBertConfig(**ENCODER),
        Gemma2Config(**BASE),
        Gemma3TextConfig(**BASE),
        GPT2Config(vocab_size=40, n_embd=48, n_head=3, n_layer=2, n_positions=160),
        Qwen3Config(**BASE),
        MixtralConfig(**BASE, num_local_experts=4),
        OPTConfig(vocab_size=40, hidden_size=48, num_hidden_layers=2, ffn_dim=80, num_attention_heads=3),
        Phi3Config(**BASE),
        SmolLM3Config(**BASE),
        T5Config(vocab_size=40, d_model=48, d_kv=16, num_heads=3, d_ff=80, num_layers=3),
        *(LlamaConfig(**BASE, rope_parameters=rope) for rope in (LINEAR, DYNAMIC, YARN, LLAMA3, LONG)),
    )
]
OTHERS = ("rope_scaling", "layer_types", "is_causal", "architectures", "auto_map", "head_dim", "_name_or_path")
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 3, 10**9, 10**30, 0.5, -0.5, float("inf"), float("nan"), "", "gelu"),
    *([], [1], [None] * 3, {}, {"0": 1}, {"rope_type": "yarn"}, {"full_attention": {}}),
)


def places(fields: dict[str, Any], before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all fields, inside others too."""
    for name, value in fields.items():
        yield (*before, name)
        if isinstance(value, dict):
            yield from places(value, (*before, name))


def changed(fields: dict[str, Any], place: tuple[str, ...], value: Any) -> dict[str, Any]:
    whole = copy.deepcopy(fields)
    inner = whole
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    return whole


@settings(max_examples=600, deadline=None)
@given(st.data())
def test_any_value_of_any_field(data: st.DataObject) -> None:
    fields = data.draw(st.sampled_from(MODELS))
    place = data.draw(st.sampled_from([*places(fields), *((name,) for name in OTHERS)]))
    value = data.draw(st.sampled_from(VALUES))
    try:
        build_body(ModelConfig(PATH, changed(fields, place, value)))
    except CheckpointError as error:
        assert str(error).startswith(f"{PATH}: ")  # noqa: PT017  # only if it is raised


@pytest.mark.parametrize(
    ("rope", "message"),
    [
        ({**LINEAR, "factor": 0}, "field 'rope_parameters.factor' is 0, expected a number above it"),
        ({**LINEAR, "rope_theta": 0}, "field 'rope_parameters.rope_theta' is 0"),
        ({**YARN, "rope_theta": 1}, "field 'rope_parameters.rope_theta' is 1, with which all pairs"),
        ({**LLAMA3, "high_freq_factor": 1}, "field 'rope_parameters.high_freq_factor' is 1.0, expected more than"),
        ({**LONG, "long_factor": [0] * 8}, "field 'rope_parameters.long_factor' has 0.0, expected numbers above 0"),
        ({**LONG, "short_factor": None}, "field 'rope_parameters.short_factor' is missing, expected 8 numbers"),
    ],
)
def test_contradictory_positions(rope: dict[str, Any], message: str) -> None:
    fields = {**MODELS[-1], "rope_parameters": rope}
    with pytest.raises(CheckpointError, match=message):
        build_body(ModelConfig(PATH, fields))


def test_more_layers_than_any_model_has() -> None:
    with pytest.raises(CheckpointError, match=f"'num_hidden_layers' is 1000000000, .* up to {MOST_OF_THEM}"):
        build_body(ModelConfig(PATH, {**MODELS[0], "num_hidden_layers": 10**9}))


def test_code_of_its_own_is_never_run() -> None:
    code = {"AutoModel": "modeling_hyper.HyperModel"}
    with pytest.raises(
        CheckpointError, match=r"'hyper', which is not supported; known are .*code of its own .*is never run"
    ):
        build_body(ModelConfig(PATH, {"model_type": "hyper", "auto_map": code}))
    with pytest.raises(CheckpointError, match=r"'hyper', which is not supported; known are .*backend='transformers'"):
        build_body(ModelConfig(PATH, {"model_type": "hyper"}))
