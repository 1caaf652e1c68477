"""Causal families whose checkpoints see both sides, however they say so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaModel,
    Ministral3Config,
    Ministral3Model,
    MistralConfig,
    MistralModel,
    Qwen2Config,
    Qwen2Model,
    Qwen3Config,
    Qwen3Model,
)

from .harness import Peer, assert_refused, check, edit_config, encoder_of, ids_of, save, texts_of
from .tiny import BASE

CODE = "modeling_gritlm7b.MistralForCausalLM"
SAYING: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama-nemotron-embed": (LlamaModel, LlamaConfig, {"model_type": "llama_bidirec", "pooling": "avg"}),
    "NVIDIA's architecture": (LlamaModel, LlamaConfig, {"architectures": ["LlamaBidirectionalModel"]}),
    "nemotron-3-embed": (Ministral3Model, Ministral3Config, {"model_type": "ministral3_bidirec"}),
    "pplx-embed": (
        Qwen3Model,
        Qwen3Config,
        {
            "model_type": "bidirectional_pplx_qwen3",
            "architectures": ["PPLXQwen3Model"],
            "use_bidirectional_attention": True,
        },
    ),
    "gte-Qwen2": (Qwen2Model, Qwen2Config, {"is_causal": False, "auto_map": {"AutoModel": "modeling_qwen.Qwen2Model"}}),
    "GritLM": (MistralModel, MistralConfig, {"auto_map": {"AutoModelForCausalLM": CODE}}),
    **{
        f"LLM2Vec, {name}": (model, config, {"architectures": [name]})
        for name, model, config in (
            ("LlamaBiModel", LlamaModel, LlamaConfig),
            ("MistralBiModel", MistralModel, MistralConfig),
            ("Qwen2BiModel", Qwen2Model, Qwen2Config),
            ("LlamaBiForMNTP", LlamaModel, LlamaConfig),
            ("MistralEncoderModel", MistralModel, MistralConfig),
            ("LlamaEncoderForMaskedLM", LlamaModel, LlamaConfig),
        )
    },
}


@pytest.mark.parametrize("name", SAYING)
def test_how_checkpoints_say_so(tmp_path: Path, name: str) -> None:
    """The same vectors to the bit as where the config says `is_causal: false`, which transformers understands."""
    model, config, fields = SAYING[name]
    options = {"sliding_window": None} if model is MistralModel else {}
    folder = save(tmp_path, model(config(**BASE | options)))
    one_sided = token_vectors(folder)
    edit_config(folder, is_causal=False)
    check(folder, Peer(model))
    expected = token_vectors(folder)
    edit_config(folder, **{"is_causal": None} | fields)
    assert (token_vectors(folder) == expected).all()
    assert (expected != one_sided).any()


def token_vectors(folder: Path) -> Any:
    """[T, D] of all texts, without a prompt."""
    encoder = encoder_of(folder, "generic")
    return np.concatenate(encoder.encode(texts_of(), prompt="", output_value="token_embeddings"))


@pytest.mark.parametrize("model_type", ["llama", "gemma", "gemma3_text"])
def test_contradictions(tmp_path: Path, model_type: str) -> None:
    fields = {"model_type": model_type, "is_causal": True, "use_bidirectional_attention": True}
    assert_refused(tmp_path, BASE | fields, "field 'is_causal' is true, and 'use_bidirectional_attention' too")


class BiLlm:
    """Llama whose layers see both sides from one of them on, as BiLLM's code does it."""

    def __init__(self, start: int) -> None:
        self.start = start

    def token_vectors(self, folder: Path, dtype: torch.dtype, texts: Sequence[str]) -> list[Any]:
        """[T, D] float64 for each text."""
        model = LlamaModel.from_pretrained(str(folder), dtype=dtype, attn_implementation="eager").eval()
        found = []
        for text in texts:
            ids = ids_of(text)[None]
            positions = torch.arange(ids.shape[1])[None]
            hidden = model.embed_tokens(ids)
            turned = model.rotary_emb(hidden, positions)
            hides = torch.full((ids.shape[1], ids.shape[1]), -torch.inf, dtype=dtype).triu(1)[None, None]
            with torch.inference_mode():
                for index, layer in enumerate(model.layers):
                    mask = torch.zeros_like(hides) if 0 <= self.start <= index else hides
                    hidden = layer(hidden, attention_mask=mask, position_embeddings=turned)
                found.append(model.norm(hidden)[0].double().numpy())
        return found


@pytest.mark.parametrize("start", [-1, 0, 1, 2, 3], ids=lambda start: f"BeLLM from layer {start} on")
def test_from_a_layer_on(tmp_path: Path, start: int) -> None:
    folder = save(tmp_path, LlamaModel(LlamaConfig(**BASE)))
    check(edit_config(folder, billm_start_index=start), BiLlm(start))


@pytest.mark.parametrize("start", [-2, "31", 1.0, True])
def test_a_wrong_start(tmp_path: Path, start: Any) -> None:
    message = f"field 'billm_start_index' is {start!r}, expected the number of a layer, or -1"
    assert_refused(tmp_path, BASE | {"model_type": "llama", "billm_start_index": start}, message)
