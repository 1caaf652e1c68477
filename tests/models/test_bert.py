"""The BERT family: tiny random checkpoints of transformers, with float64 as the judge."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, BertModel, BertTokenizerFast

from longspan import CheckpointError, Encoder
from longspan.batch import Float32
from longspan.models import build_body
from longspan.models.config import ModelConfig

from . import harness

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz0123456789"]
LENGTHS = (0, 1, 2, 4, 5, 6, 10, 11, 12, 13, 45, 46, 47, 62)
RANDOM = np.random.default_rng(0)
TEXTS = [" ".join(RANDOM.choice(list(WORDS[5:]), length)) for length in LENGTHS]
SLACK = 4 * float(np.finfo(np.float32).eps)

ODD: dict[str, dict[str, Any]] = {
    "head size 8": {"hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 17},
    "head size 16": {"hidden_size": 16, "num_attention_heads": 1, "intermediate_size": 1, "type_vocab_size": 1},
    "head size 24": {"hidden_size": 72, "num_attention_heads": 3, "intermediate_size": 100, "hidden_act": "gelu_new"},
    "head size 32": {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 260, "layer_norm_eps": 1e-3},
    "head size 40": {"hidden_size": 40, "num_attention_heads": 1, "intermediate_size": 33, "hidden_act": "relu"},
    "head size 64": {"hidden_size": 320, "num_attention_heads": 5, "intermediate_size": 515, "num_hidden_layers": 1},
    "head size 96": {"hidden_size": 192, "num_attention_heads": 2, "intermediate_size": 96, "num_hidden_layers": 5},
    "head size 128": {"hidden_size": 256, "num_attention_heads": 2, "intermediate_size": 512, "hidden_act": "silu"},
}


def config_of(**options: Any) -> BertConfig:
    base = {
        "vocab_size": len(WORDS),
        "hidden_size": 48,
        "num_attention_heads": 3,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.15,
    }
    return BertConfig(**{**base, **options})


def save(folder: Path, model: Any, dtype: torch.dtype = torch.float32) -> Path:
    """Save a model with all weights random, biases and norms too, and a tokenizer."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.2 * torch.randn_like(parameter)
    model.to(dtype).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    return folder


def token_vectors(folder: Path, dtype: torch.dtype, texts: list[str]) -> list[Any]:
    """transformers' own, a text at a time."""
    model = BertModel.from_pretrained(str(folder), dtype=dtype, attn_implementation="eager").eval()
    found = []
    for text in texts:
        ids = torch.tensor([[2, *(WORDS.index(word) for word in text.split()), 3]])
        with torch.inference_mode():
            found.append(model(input_ids=ids).last_hidden_state[0].double().numpy())
    return found


def check(folder: Path, *encoders: Encoder) -> None:
    """Our error to float64 is at most twice that of transformers in float32."""
    exact, peer = (token_vectors(folder, dtype, TEXTS) for dtype in (torch.float64, torch.float32))
    scale = max(float(np.abs(matrix).max()) for matrix in exact)
    allowed = 2 * max(float(np.abs(a - b).max()) for a, b in zip(peer, exact, strict=True)) + SLACK * scale
    for encoder in encoders or (Encoder(folder),):
        ours: list[Float32] = encoder.encode(TEXTS, output_value="token_embeddings")
        for mine, truth, text in zip(ours, exact, TEXTS, strict=True):
            assert mine.shape == truth.shape
            error = float(np.abs(mine - truth).max())
            assert error <= allowed, f"{len(text.split())} tokens: error {error:.3g}, allowed {allowed:.3g}"


@pytest.mark.parametrize("name", ODD)
def test_odd_configs(tmp_path: Path, name: str) -> None:
    config = config_of(vocab_size=len(harness.VOCABULARY), max_position_embeddings=150, **ODD[name])
    harness.check(harness.save(tmp_path, BertModel(config)), harness.Peer(BertModel))


@pytest.mark.parametrize(
    "activation", ["gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "relu", "silu", "swish", "tanh"]
)
def test_activations(tmp_path: Path, activation: str) -> None:
    check(save(tmp_path, BertModel(config_of(hidden_act=activation))))


@pytest.mark.parametrize("eps", [1e-12, 1e-5, 0.1])
def test_eps(tmp_path: Path, eps: float) -> None:
    check(save(tmp_path, BertModel(config_of(layer_norm_eps=eps))))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_checkpoints(tmp_path: Path, dtype: torch.dtype) -> None:
    """The weights as they are in the file, computed with in float32."""
    folder = save(tmp_path, BertModel(config_of()), dtype)
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {dtype}
    check(folder)


def test_reference_backend(tmp_path: Path) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        folder = save(tmp_path / str(dtype), BertModel(config_of()), dtype)
        check(folder, Encoder(folder, backend="reference", device="cpu"))


def test_prefix_of_a_language_model(tmp_path: Path) -> None:
    folder = save(tmp_path, BertForMaskedLM(config_of()))
    assert "bert.embeddings.LayerNorm.weight" in load_file(folder / "model.safetensors")
    check(folder)


def test_without_pooler(tmp_path: Path) -> None:
    check(save(tmp_path, BertModel(config_of(), add_pooling_layer=False)))


def test_old_names_of_norms(tmp_path: Path) -> None:
    """Checkpoints as old as bert-base-uncased call them gamma and beta; transformers renames them when loading."""
    folder = save(tmp_path, BertModel(config_of()))
    tensors = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    assert "embeddings.LayerNorm.gamma" in tensors
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    check(folder)


def test_shards(tmp_path: Path) -> None:
    model = BertModel(config_of(num_hidden_layers=3))
    folder = save(tmp_path, model)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="60KB")
    assert (folder / "model.safetensors.index.json").exists()
    check(folder)


def test_a_config_without_what_has_defaults(tmp_path: Path) -> None:
    folder = save(tmp_path, BertModel(config_of()))
    fields = json.loads((folder / "config.json").read_text())
    for name in ("type_vocab_size", "layer_norm_eps", "hidden_act", "position_embedding_type", "is_decoder"):
        fields.pop(name, None)
    (folder / "config.json").write_text(json.dumps(fields))
    check(folder)


def test_maximum(tmp_path: Path) -> None:
    encoder = Encoder(save(tmp_path, BertModel(config_of(max_position_embeddings=33))))
    assert encoder.max_seq_length == 33


CORRECT = {
    "model_type": "bert",
    "vocab_size": 30,
    "hidden_size": 48,
    "num_attention_heads": 3,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "max_position_embeddings": 64,
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": None}, "field 'hidden_size' is missing"),
        ({"vocab_size": "30"}, "field 'vocab_size' is '30', expected a positive integer"),
        ({"num_hidden_layers": 0}, "field 'num_hidden_layers' is 0, expected a positive integer"),
        ({"num_hidden_layers": True}, "field 'num_hidden_layers' is True"),
        ({"intermediate_size": 80.0}, "field 'intermediate_size' is 80.0"),
        ({"max_position_embeddings": -1}, "field 'max_position_embeddings' is -1"),
        ({"num_attention_heads": 5}, "hidden_size 48 over num_attention_heads 5 gives no head size"),
        ({"num_attention_heads": 4}, "hidden_size 48 over num_attention_heads 4 gives no head size"),
        ({"hidden_act": "mish"}, "field 'hidden_act' is 'mish'; known are gelu,"),
        ({"hidden_act": 3}, "field 'hidden_act' is 3, expected a string"),
        ({"layer_norm_eps": -1e-5}, "field 'layer_norm_eps' is -1e-05"),
        ({"layer_norm_eps": "small"}, "field 'layer_norm_eps' is 'small', expected a number"),
        (
            {"position_embedding_type": "relative_key"},
            "field 'position_embedding_type' is 'relative_key'; only 'absolute'",
        ),
        ({"is_decoder": True}, "field 'is_decoder' is True; only False"),
        ({"model_type": None}, "field 'model_type' is missing"),
        ({"model_type": "hyperbert"}, "field 'model_type' is 'hyperbert', which is not supported; known are bert, "),
    ],
)
def test_config_errors(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**CORRECT, **changes}))
    with pytest.raises(CheckpointError, match=re.escape(f"{path}: {message}")):
        build_body(ModelConfig.read(path))


def test_unusable_types(tmp_path: Path) -> None:
    folder = save(tmp_path, BertModel(config_of()))
    tensors = load_file(folder / "model.safetensors")
    name = "encoder.layer.1.output.dense.weight"
    tensors[name] = tensors[name].double()
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=re.escape(f"tensor {name!r} has the type F64; usable are F32, F16, BF16")
    ):
        Encoder(folder)
