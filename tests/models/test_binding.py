"""How a program's weights are found in a checkpoint, and what else must not be there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

from longspan import CheckpointError, Encoder

from .harness import VOCABULARY, save

CONFIG = LlamaConfig(
    vocab_size=len(VOCABULARY),
    hidden_size=32,
    num_attention_heads=2,
    intermediate_size=48,
    num_hidden_layers=3,
    max_position_embeddings=64,
)


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


def test_heads_and_buffers_are_nobodys(tmp_path: Path) -> None:
    folder = save(tmp_path, LlamaForCausalLM(CONFIG))
    others = ("model.rotary_emb.inv_freq", "model.layers.0.self_attn.rotary_emb.inv_freq", "score.weight")
    add(folder, **{name: torch.zeros(8) for name in others})
    Encoder(folder)


def test_the_first_layers_leave_the_others_alone(tmp_path: Path) -> None:
    Encoder(save(tmp_path, LlamaModel(CONFIG)), layers=1)
