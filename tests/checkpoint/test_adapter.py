"""LoRA adapters against PEFT's own merge, in float64."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tests.models.harness import VOCABULARY, save, texts_of
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, LlamaConfig, LlamaForCausalLM, LlamaModel

from longspan import CheckpointError, Encoder
from longspan.checkpoint.adapter import with_adapter
from longspan.checkpoint.tensor_view import as_float32
from longspan.checkpoint.tensors import Tensors

SMALL = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "max_position_embeddings": 64,
}
BERT = ["query", "value", "dense"]
LLAMA = ["q_proj", "down_proj"]
MODELS: dict[str, tuple[Any, Any]] = {
    "bert": (BertModel, BertConfig(**SMALL)),
    "llama": (LlamaModel, LlamaConfig(**SMALL)),
    "llama-lm": (LlamaForCausalLM, LlamaConfig(**SMALL)),
    "gpt2": (GPT2Model, GPT2Config(vocab_size=len(VOCABULARY), n_embd=32, n_head=2, n_layer=2, n_positions=64)),
}
ADAPTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("bert", {"target_modules": BERT}),
    "one layer": ("bert", {"target_modules": BERT, "layers_to_transform": [1]}),
    "of a language model": ("llama-lm", {"target_modules": LLAMA}),
    "regular expression": ("llama", {"target_modules": r".*\.(q|v)_proj"}),
    "rank-stabilised": ("bert", {"target_modules": BERT, "use_rslora": True, "lora_alpha": 3}),
    "decomposed": ("llama", {"target_modules": LLAMA, "use_dora": True}),
    "patterns": (
        "llama",
        {
            "target_modules": LLAMA,
            "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.down_proj": 6},
            "alpha_pattern": {"down_proj": 32},
        },
    ),
    "biases": ("bert", {"target_modules": BERT, "bias": "all"}),
    "own biases": ("bert", {"target_modules": BERT, "lora_bias": True}),
    "embedding": ("bert", {"target_modules": ["word_embeddings", "query"]}),
    "embedding saved too": ("llama", {"target_modules": ["embed_tokens", "q_proj"]}),
    "decomposed embedding": ("bert", {"target_modules": ["word_embeddings"], "use_dora": True}),
    "modules saved whole": ("bert", {"target_modules": ["query"], "modules_to_save": ["LayerNorm"]}),
    "transposed": ("gpt2", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
}


def adapted(folder: Path, name: str) -> tuple[Path, Path]:
    """A random model and a random adapter of it, in folders."""
    kind, options = ADAPTERS[name]
    model_class, config = MODELS[kind]
    base = save(folder / "base", model_class(config))
    torch.manual_seed(1)
    adapter = get_peft_model(model_class.from_pretrained(str(base)), LoraConfig(**{"r": 4, "lora_alpha": 8} | options))
    with torch.no_grad():
        for parameter in adapter.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn_like(parameter)
    adapter.save_pretrained(str(folder / "adapter"))
    return base, folder / "adapter"


def merged(base: Path, adapter: Path, name: str) -> dict[str, torch.Tensor]:
    """PEFT's merge in float64."""
    model = MODELS[ADAPTERS[name][0]][0].from_pretrained(str(base), dtype=torch.float64)
    tensors: dict[str, torch.Tensor] = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().state_dict()
    return tensors


@pytest.mark.parametrize("name", ADAPTERS)
def test_merge(tmp_path: Path, name: str) -> None:
    base, adapter = adapted(tmp_path, name)
    plain = Tensors.open(base)
    ours = with_adapter(plain, adapter)
    assert set(ours) == set(plain)
    changed = 0
    for tensor, theirs in merged(base, adapter, name).items():
        if tensor in ours:
            mine = as_float32(ours[tensor].data, ours[tensor].dtype)
            np.testing.assert_allclose(mine, theirs.numpy(), atol=2e-6, rtol=2e-6, err_msg=tensor)
            changed += not np.array_equal(mine, plain[tensor].data)
    assert changed >= 1


def test_encoder(tmp_path: Path) -> None:
    """Vectors are those of the merged checkpoint, and differ from the base's."""
    base, adapter = adapted(tmp_path, "decomposed")
    model = LlamaModel.from_pretrained(str(base))
    whole = save_merged(tmp_path / "merged", PeftModel.from_pretrained(model, str(adapter)).merge_and_unload(), base)
    texts = texts_of((1, 5, 20))
    ours = Encoder(base, adapter=adapter).encode(texts)
    np.testing.assert_allclose(ours, Encoder(whole).encode(texts), atol=5e-6)
    assert np.abs(ours - Encoder(base).encode(texts)).max() > 0.01


def save_merged(folder: Path, model: Any, base: Path) -> Path:
    model.save_pretrained(str(folder))
    (folder / "tokenizer.json").write_bytes((base / "tokenizer.json").read_bytes())
    return folder


def test_base_of_half_precision(tmp_path: Path) -> None:
    base, adapter = adapted(tmp_path, "plain")
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(base / "model.safetensors").items()}
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    ours = with_adapter(Tensors.open(base), adapter)
    for name, theirs in merged(base, adapter, "plain").items():
        if name in ours:
            np.testing.assert_allclose(as_float32(ours[name].data, ours[name].dtype), theirs.numpy(), atol=2e-6)


def edit(adapter: Path, **changes: Any) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "'peft_type' is 'IA3'; only 'LORA' is supported"),
        ({"r": None}, "'r' is missing"),
        ({"lora_alpha": "8"}, "'lora_alpha' is '8', expected a number"),
        ({"bias": "some"}, "'bias' is 'some'; known are none, all, lora_only"),
        ({"target_parameters": ["x"]}, "'target_parameters' is not supported"),
        ({"trainable_token_indices": [1]}, "'trainable_token_indices' is not supported"),
        ({"init_lora_weights": "pissa_niter_4"}, "'init_lora_weights' is 'pissa_niter_4', which changes the base's"),
        ({"rank_pattern": {"query": 0}}, "'rank_pattern.query' is 0, expected a positive integer"),
        ({"rank_pattern": {"(": 3}}, "'rank_pattern.(' is no regular expression"),
        ({"use_dora": True}, "lacks lora_magnitude_vector, and 'use_dora' is true"),
        ({"fan_in_fan_out": True}, "has the shape"),
    ],
)
def test_configs(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    base, adapter = adapted(tmp_path, "plain")
    edit(adapter, **changes)
    with pytest.raises(CheckpointError, match=re.escape(message)):
        with_adapter(Tensors.open(base), adapter)


def test_an_adapter_of_another_model(tmp_path: Path) -> None:
    base, _ = adapted(tmp_path / "one", "plain")
    _, adapter = adapted(tmp_path / "other", "decomposed")
    with pytest.raises(CheckpointError, match=r"the module 'layers\.\S+' is not in the checkpoint"):
        with_adapter(Tensors.open(base), adapter)


def test_half_an_update(tmp_path: Path) -> None:
    base, adapter = adapted(tmp_path, "plain")
    tensors = load_file(adapter / "adapter_model.safetensors")
    del tensors[next(name for name in tensors if "lora_B" in name)]
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="lacks lora_B"):
        with_adapter(Tensors.open(base), adapter)


def test_a_table_of_embeddings_in_the_adapter(tmp_path: Path) -> None:
    """PEFT saves it beside its update, which is of that table and not of the base's."""
    base, adapter = adapted(tmp_path, "embedding saved too")
    tensors = load_file(adapter / "adapter_model.safetensors")
    name = "base_model.model.embed_tokens.base_layer.weight"
    save_file({**tensors, name: tensors[name] + 1}, adapter / "adapter_model.safetensors")
    ours = with_adapter(Tensors.open(base), adapter)["embed_tokens.weight"]
    theirs = merged(base, adapter, "embedding saved too")["embed_tokens.weight"].numpy()
    np.testing.assert_allclose(as_float32(ours.data, ours.dtype), theirs, atol=2e-6)


def test_magnitudes_of_a_wrong_shape(tmp_path: Path) -> None:
    base, adapter = adapted(tmp_path, "decomposed embedding")
    tensors = load_file(adapter / "adapter_model.safetensors")
    name = next(name for name in tensors if "magnitude" in name)
    save_file({**tensors, name: torch.ones(5)}, adapter / "adapter_model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"the lora_magnitude_vector of '\S+' has the shape \[5\], expected \[32\]"
    ):
        with_adapter(Tensors.open(base), adapter)


def test_magnitudes_of_a_plain_update(tmp_path: Path) -> None:
    base, adapter = adapted(tmp_path, "decomposed")
    edit(adapter, use_dora=False)
    with pytest.raises(CheckpointError, match="has lora_magnitude_vector, and 'use_dora' is false"):
        with_adapter(Tensors.open(base), adapter)


def test_a_missing_folder(tmp_path: Path) -> None:
    base, adapter = adapted(tmp_path, "plain")
    with pytest.raises(CheckpointError, match=r"adapter_config\.json does not exist"):
        Encoder(base, adapter=adapter / "nowhere")


def test_what_is_no_part_of_a_lora(tmp_path: Path) -> None:
    """As of methods whose configs say no more than PEFT's plain one."""
    base, adapter = adapted(tmp_path, "plain")
    tensors = load_file(adapter / "adapter_model.safetensors")
    name = next(iter(tensors)).replace("lora_A.weight", "vera_lambda")
    save_file({**tensors, name: torch.ones(2)}, adapter / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"' has a 'vera_lambda', which is no part of a LoRA"):
        Encoder(base, adapter=adapter)


def test_all_biases(tmp_path: Path) -> None:
    """Biases that were trained stand in the place of the base's."""
    base, adapter = adapted(tmp_path, "biases")
    whole = save_merged(
        tmp_path / "merged",
        PeftModel.from_pretrained(BertModel.from_pretrained(str(base)), str(adapter)).merge_and_unload(),
        base,
    )
    texts = texts_of((1, 5, 20))
    np.testing.assert_allclose(Encoder(base, adapter=adapter).encode(texts), Encoder(whole).encode(texts), atol=5e-6)
