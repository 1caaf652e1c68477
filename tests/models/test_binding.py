"""How a program's weights are found in a checkpoint, and what else must not be there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel, NomicBertConfig, NomicBertModel

from longspan import CheckpointError, Encoder, UnusedWeightsWarning

from .harness import VOCABULARY, save

SMALL: dict[str, Any] = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "max_position_embeddings": 64,
}
CONFIG = LlamaConfig(**SMALL)


def edit(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def add(folder: Path, **tensors: torch.Tensor) -> None:
    path = folder / "model.safetensors"
    save_file({**load_file(path), **tensors}, path, metadata={"format": "pt"})


def test_a_layer_more_than_the_config_says(tmp_path: Path) -> None:
    folder = save(tmp_path, LlamaModel(CONFIG))
    edit(folder, num_hidden_layers=2)
    with pytest.raises(CheckpointError, match=r"tensor 'layers\.2\.\S+' lies beyond the 2 that the config speaks of"):
        Encoder(folder)


def test_a_layer_less_than_the_config_says(tmp_path: Path) -> None:
    folder = save(tmp_path, LlamaModel(CONFIG))
    edit(folder, num_hidden_layers=4)
    with pytest.raises(CheckpointError, match=r"has no tensor 'layers\.3\.\S+'; the closest names are"):
        Encoder(folder)


def test_a_bias_that_the_config_does_not_speak_of(tmp_path: Path) -> None:
    folder = save(tmp_path, LlamaModel(CONFIG))
    add(folder, **{"layers.1.self_attn.q_proj.bias": torch.zeros(32)})
    message = "tensor 'layers.1.self_attn.q_proj.bias' is a bias that the config does not speak of"
    with pytest.raises(CheckpointError, match=re.escape(message)):
        Encoder(folder)


@pytest.mark.parametrize("name", ["layers.1.self_attn.q_norm.weight", "layers.2.pre_feedforward_layernorm.weight"])
def test_a_weight_that_the_config_does_not_speak_of(tmp_path: Path, name: str) -> None:
    """Such as the norms of another model type's layers."""
    folder = save(tmp_path, LlamaModel(CONFIG))
    add(folder, **{name: torch.ones(16)})
    with pytest.raises(CheckpointError, match=re.escape(f"tensor '{name}' is a weight that the config does not speak")):
        Encoder(folder)


def test_another_shape(tmp_path: Path) -> None:
    folder = save(tmp_path, LlamaModel(CONFIG))
    edit(folder, intermediate_size=40)
    message = "tensor 'layers.0.mlp.up_proj.weight' has the shape [48, 32], but [40, 32] is expected"
    with pytest.raises(CheckpointError, match=re.escape(message)):
        Encoder(folder)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("layers.0.self_attn.sinks", "parameter"),
        ("layers.0.layer_scalar", "parameter"),
        ("layers.0.self_attn.q_proj.weight_scale", "parameter"),
        ("layers.0.self_attn.q_proj.lora_A.weight", "weight"),
        ("layers.0.mlp.shared_expert.gate_proj.weight", "weight"),
        ("layers.0.gates.0.up.weight", "weight"),
        ("embed_tokens.scale", "parameter"),
        ("norm.bias", "bias"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "model."])
def test_what_the_config_does_not_speak_of(tmp_path: Path, prefix: str, name: str, kind: str) -> None:
    folder = save(tmp_path, (LlamaForCausalLM if prefix else LlamaModel)(CONFIG))
    add(folder, **{prefix + name: torch.ones(16)})
    message = f"tensor '{prefix}{name}' is a {kind} that the config does not speak of"
    with pytest.raises(CheckpointError, match=re.escape(message)):
        Encoder(folder)


@pytest.mark.parametrize("name", ["embed_positions.weight", "embed_layernorm.weight", "project_out.weight"])
def test_beside_what_the_model_has(tmp_path: Path, name: str) -> None:
    """Refused where the prefix tells that it is in the model, and spoken of where it may as well be a head."""
    inside = save(tmp_path / "inside", LlamaForCausalLM(CONFIG))
    add(inside, **{f"model.{name}": torch.ones(16, 32)})
    with pytest.raises(CheckpointError, match=re.escape(f"tensor 'model.{name}' is a weight that the config does not")):
        Encoder(inside)
    beside = save(tmp_path / "beside", LlamaModel(CONFIG))
    add(beside, **{name: torch.ones(16, 32)})
    with pytest.warns(UnusedWeightsWarning, match=re.escape(f"has weights that nothing uses: {name}")):
        Encoder(beside)


def test_positions_of_a_rotary_encoder(tmp_path: Path) -> None:
    folder = save(tmp_path, NomicBertModel(NomicBertConfig(**SMALL)))
    add(folder, **{"embeddings.position_embeddings.weight": torch.ones(64, 32)})
    with pytest.raises(CheckpointError, match=r"tensor 'embeddings.position_embeddings.weight' is a weight that"):
        Encoder(folder)


def test_a_model_twice(tmp_path: Path) -> None:
    folder = save(tmp_path, LlamaModel(CONFIG))
    add(folder, **{f"model.{name}": tensor + 1 for name, tensor in load_file(folder / "model.safetensors").items()})
    with pytest.raises(
        CheckpointError, match=r"tensor 'model\.(layers\.\S+)' is there beside '\1'; one of them counts"
    ):
        Encoder(folder)


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8", "bitsandbytes"])
def test_quantised_weights(tmp_path: Path, method: str) -> None:
    folder = save(tmp_path, LlamaModel(CONFIG))
    edit(folder, quantization_config={"quant_method": method, "bits": 4})
    with pytest.raises(
        CheckpointError, match=rf"config\.json: field 'quantization_config' says .* quantised \({method}\)"
    ):
        Encoder(folder)


@pytest.mark.filterwarnings("error::longspan.UnusedWeightsWarning")
@pytest.mark.parametrize("prefix", ["", "model."])
def test_heads_and_buffers_are_nobodys(tmp_path: Path, prefix: str) -> None:
    folder = save(tmp_path, (LlamaForCausalLM if prefix else LlamaModel)(CONFIG))
    buffers = ("rotary_emb.inv_freq", "layers.0.self_attn.rotary_emb.inv_freq", "layers.0.attention.masked_bias")
    heads = ("score.weight", "lm_head.bias", "vision_tower.encoder.layers.0.self_attn.q_proj.weight")
    add(folder, **{name: torch.zeros(8) for name in (*(prefix + name for name in buffers), *heads)})
    add(folder, **{f"{prefix}position_ids": torch.arange(8)})
    Encoder(folder)


def test_the_first_layers_leave_the_others_alone(tmp_path: Path) -> None:
    Encoder(save(tmp_path, LlamaModel(CONFIG)), layers=1)
