"""Adapters by transformers' names, of checkpoints that transformers saves with the names of the original code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tests.models.harness import ids_of, last_hidden_state, save, texts_of
from tests.models.tiny import ENCODER
from transformers import (
    GteConfig,
    GteModel,
    JinaEmbeddingsV3Config,
    JinaEmbeddingsV3Model,
    NomicBertConfig,
    NomicBertModel,
)

from longspan import CheckpointError, Encoder

TEXTS = texts_of((1, 5, 20))
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
GATED = ["gate_proj", "up_proj", "down_proj"]
FIELDS = ENCODER | {"pad_token_id": 0}
FAMILIES: dict[str, tuple[Any, Any, list[str]]] = {
    "nomic_bert": (NomicBertModel, NomicBertConfig(**FIELDS), ATTENTION + GATED),
    "gte": (GteModel, GteConfig(**FIELDS), ATTENTION + GATED),
    "jina_v3": (JinaEmbeddingsV3Model, JinaEmbeddingsV3Config(**FIELDS), [*ATTENTION, "fc1", "fc2"]),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "decomposed": {"use_dora": True},
    "biases": {"bias": "all"},
    "saved whole": {"modules_to_save": ["v_proj", "LayerNorm", "post_mlp_layernorm"]},
}


def adapted(folder: Path, family: str, options: dict[str, Any]) -> tuple[Path, Path, list[Any]]:
    """A random model, a random adapter of it, and the token vectors [T, D] of the two merged, by PEFT."""
    model_class, config, modules = FAMILIES[family]
    base, adapter = save(folder / "base", model_class(config)), folder / "adapter"
    targets = [name for name in modules if name not in options.get("modules_to_save", ())]
    model = get_peft_model(model_class.from_pretrained(str(base)), LoraConfig(r=4, target_modules=targets, **options))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(str(adapter))
    merged = model.merge_and_unload().eval()
    with torch.inference_mode():
        return base, adapter, [last_hidden_state(merged, ids_of(text)[None])[0].numpy() for text in TEXTS]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_merge(tmp_path: Path, family: str, options: str) -> None:
    base, adapter, expected = adapted(tmp_path, family, OPTIONS[options])
    ours = Encoder(base, adapter=adapter).encode(TEXTS, prompt="", output_value="token_embeddings")
    for mine, theirs in zip(ours, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-5)


def test_save(tmp_path: Path) -> None:
    """A merged checkpoint keeps its names."""
    base, adapter, _ = adapted(tmp_path, "nomic_bert", {})
    encoder = Encoder(base, adapter=adapter)
    encoder.save(str(tmp_path / "merged"))
    assert set(load_file(tmp_path / "merged" / "model.safetensors")) == set(load_file(base / "model.safetensors"))
    assert (Encoder(tmp_path / "merged").encode(TEXTS) == encoder.encode(TEXTS)).all()


def test_of_another_shape(tmp_path: Path) -> None:
    base, adapter, _ = adapted(tmp_path, "jina_v3", OPTIONS["biases"])
    tensors = load_file(adapter / "adapter_model.safetensors")
    name = next(name for name in tensors if name.endswith("0.self_attn.k_proj.base_layer.bias"))
    save_file({**tensors, name: torch.ones(5)}, adapter / "adapter_model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"'layers\.0\.self_attn\.k_proj\.bias' has the shape \[5\], expected \[48\]"
    ):
        Encoder(base, adapter=adapter)


def test_of_a_module_that_is_not_there(tmp_path: Path) -> None:
    base, adapter, _ = adapted(tmp_path, "nomic_bert", {})
    tensors = load_file(adapter / "adapter_model.safetensors")
    renamed = {name.replace("layers.1.", "layers.7."): tensor for name, tensor in tensors.items()}
    save_file(renamed, adapter / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"the module 'layers\.7\.mlp\.down_proj' is not in the checkpoint"):
        Encoder(base, adapter=adapter)
