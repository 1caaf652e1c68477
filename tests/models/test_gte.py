"""GTE: transformers' own, and the original code's ("new") as a formula."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from transformers import GteConfig, GteForMaskedLM, GteModel

from longspan import Encoder

from .formulas import Tensors, attention, heads_of, inverse_frequencies, layer_norm, linear, rms_norm, rotated
from .harness import Formula, Peer, assert_refused, check, edit_config, edit_tensors, save, save_tensors
from .tiny import ENCODER, LLAMA3, LONG

BASE: dict[str, Any] = {
    **ENCODER,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.15,
}

# --- transformers' own ---------------------------------------------------------------------------------------------

WIDE = {"initializer_range": 0.05}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 40, "rope_theta": 1000.0}

CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "head size 8": {"hidden_size": 24, "intermediate_size": 17, "type_vocab_size": 0},
    "head size 40": {"hidden_size": 120, "hidden_act": "silu", "layer_norm_eps": 1e-3},
    "head size 64": {"hidden_size": 320, "num_attention_heads": 5, "num_hidden_layers": 1, **WIDE},
    "head size 128": {"hidden_size": 256, "num_attention_heads": 2, "hidden_act": "relu", **WIDE},
    "two types": {"type_vocab_size": 2, "hidden_act": "gelu_pytorch_tanh", "num_hidden_layers": 4},
    "linear": {"rope_parameters": {"rope_type": "linear", "factor": 1.07, "rope_theta": 100.0}},
    "dynamic": {
        "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 100.0},
        "max_position_embeddings": 140,
    },
    "yarn": {"rope_parameters": YARN},
    "llama3": {"rope_parameters": LLAMA3},
    "longrope": {"rope_parameters": LONG},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_fields_of_transformers(tmp_path: Path, name: str) -> None:
    """It saves the original code's tensor names."""
    folder = save(tmp_path, GteModel(GteConfig(**BASE | CONFIGS[name])))
    assert "encoder.layer.0.attention.qkv_proj.weight" in load_file(folder / "model.safetensors")
    check(folder, Peer(GteModel))


@pytest.mark.parametrize("name", ["plain", "head size 8", "yarn"])
def test_tensor_names_of_transformers(tmp_path: Path, name: str) -> None:
    folder = save(tmp_path, GteModel(GteConfig(**BASE | CONFIGS[name])), save_original_format=False)
    assert "layers.0.self_attn.q_proj.weight" in load_file(folder / "model.safetensors")
    check(folder, Peer(GteModel))


def test_the_usual_base(tmp_path: Path) -> None:
    folder = save(tmp_path, GteModel(GteConfig(**BASE)))
    check(edit_config(folder, rope_parameters=None), Peer(GteModel))


def test_weights_of_a_language_model(tmp_path: Path) -> None:
    folder = save(tmp_path, GteForMaskedLM(GteConfig(**BASE)), torch.bfloat16)
    assert "gte.embeddings.word_embeddings.weight" in load_file(folder / "model.safetensors")
    check(folder, Peer(GteModel))


# --- the original code's -------------------------------------------------------------------------------------------

NEW: dict[str, Any] = {
    **BASE,
    "model_type": "new",
    "hidden_act": "gelu",
    "layer_norm_type": "layer_norm",
    "position_embedding_type": "rope",
    "rope_theta": 500.0,
    "rope_scaling": None,
    "pack_qkv": True,
    "logn_attention_scale": False,
    "logn_attention_clip1": False,
}
ORIGINALS: dict[str, dict[str, Any]] = {
    "plain": {},
    "stretched": {"rope_scaling": {"type": "ntk", "factor": 8.0}, "rope_theta": 20000},
    "stretched by 1": {"rope_scaling": {"type": "ntk", "factor": 1.0}},
    "stretched by pair": {"rope_scaling": {"type": "ntk", "factor": 4.0, "mixed_b": 0.625}},
    "rms norms": {"layer_norm_type": "rms_norm", "layer_norm_eps": 1e-5},
    "learned positions": {"position_embedding_type": "absolute"},
    "projections apart": {"pack_qkv": False, "hidden_size": 40, "num_attention_heads": 1},
    "no types": {"type_vocab_size": 0, "hidden_act": "silu"},
    "the usual base": {"rope_theta": None, "intermediate_size": 131, "num_hidden_layers": 3},
}


def fields_of(changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**NEW, **changes}.items() if value is not None}


def shapes_of(fields: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    d, f = fields["hidden_size"], fields["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (fields["vocab_size"], d),
        "embeddings.LayerNorm.weight": (d,),
        "embeddings.LayerNorm.bias": (d,),
    }
    if fields["type_vocab_size"]:
        shapes["embeddings.token_type_embeddings.weight"] = (fields["type_vocab_size"], d)
    if fields["position_embedding_type"] == "absolute":
        shapes["embeddings.position_embeddings.weight"] = (fields["max_position_embeddings"], d)
    projections = {"qkv_proj": 3 * d} if fields["pack_qkv"] else {"q_proj": d, "k_proj": d, "v_proj": d}
    for layer in range(fields["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"
        for name, rows in {**projections, "o_proj": d}.items():
            shapes |= {f"{at}.attention.{name}.weight": (rows, d), f"{at}.attention.{name}.bias": (rows,)}
        shapes[f"{at}.mlp.up_gate_proj.weight"] = (2 * f, d)
        shapes |= {f"{at}.mlp.down_proj.weight": (d, f), f"{at}.mlp.down_proj.bias": (d,)}
        for name in ("attn_ln", "mlp_ln"):
            shapes[f"{at}.{name}.weight"] = (d,)
            if fields["layer_norm_type"] == "layer_norm":
                shapes[f"{at}.{name}.bias"] = (d,)
    return shapes


def frequencies(fields: Mapping[str, Any], size: int) -> Tensor:
    """Whatever the length; https://kexue.fm/archives/9706, (6) and (10) to (13)."""
    base, scaling = fields.get("rope_theta", 10000.0), fields.get("rope_scaling")
    if scaling is None:
        return inverse_frequencies(base, size)
    factor, mixed = scaling["factor"], scaling.get("mixed_b")
    divisors: Any = factor ** (2 / size)
    if mixed is not None:
        exponents = math.log(factor) / (size / 2) ** mixed * torch.arange(1, size // 2 + 1).double().pow(mixed)
        divisors = exponents.exp().float()
    inverse: Tensor = inverse_frequencies(base * factor if mixed is None else base, size) / divisors
    return inverse


def new(tensors: Tensors, fields: Mapping[str, Any], ids: Tensor) -> Tensor:
    heads, eps = fields["num_attention_heads"], fields["layer_norm_eps"]
    inverse = frequencies(fields, fields["hidden_size"] // heads)
    norm = layer_norm if fields["layer_norm_type"] == "layer_norm" else rms_norm
    act = functional.gelu if fields["hidden_act"] == "gelu" else functional.silu
    learned = fields["position_embedding_type"] == "absolute"
    x = tensors["embeddings.word_embeddings.weight"][ids]
    if fields["type_vocab_size"]:
        x = x + tensors["embeddings.token_type_embeddings.weight"][0]
    if learned:
        x = x + tensors["embeddings.position_embeddings.weight"][: len(ids)]
    x = layer_norm(tensors, "embeddings.LayerNorm", x, eps)
    for layer in range(fields["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"
        if fields["pack_qkv"]:
            parts = linear(tensors, f"{at}.attention.qkv_proj", x).chunk(3, -1)
        else:
            parts = tuple(linear(tensors, f"{at}.attention.{name}_proj", x) for name in "qkv")
        q, k, v = (heads_of(part, heads) for part in parts)
        if not learned:
            q, k = rotated(q, inverse), rotated(k, inverse)
        x = norm(tensors, f"{at}.attn_ln", x + linear(tensors, f"{at}.attention.o_proj", attention(q, k, v)), eps)
        up, gate = linear(tensors, f"{at}.mlp.up_gate_proj", x).chunk(2, -1)
        x = norm(tensors, f"{at}.mlp_ln", x + linear(tensors, f"{at}.mlp.down_proj", act(gate) * up), eps)
    return x


@pytest.mark.parametrize("name", ORIGINALS)
def test_original_code(tmp_path: Path, name: str) -> None:
    fields = fields_of(ORIGINALS[name])
    check(save_tensors(tmp_path, fields, shapes_of(fields)), Formula(new))


def test_original_weights_of_a_language_model(tmp_path: Path) -> None:
    fields = fields_of({})
    folder = save_tensors(tmp_path / "plain", fields, shapes_of(fields), torch.bfloat16)
    other = save_tensors(tmp_path / "prefixed", fields, shapes_of(fields), torch.bfloat16)
    edit_tensors(other, lambda name: f"new.{name}")
    vectors = [Encoder(path).encode(["a b c"]) for path in (folder, other)]
    assert (vectors[0] == vectors[1]).all()
    check(folder, Formula(new))


def test_maximum(tmp_path: Path) -> None:
    fields = fields_of({"rope_scaling": {"type": "ntk", "factor": 8.0}})
    assert Encoder(save_tensors(tmp_path, fields, shapes_of(fields))).max_seq_length == 160


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": None}, "field 'hidden_size' is missing"),
        ({"type_vocab_size": -1}, "field 'type_vocab_size' is -1, expected an integer of at least 0"),
        ({"layer_norm_type": "group_norm"}, "field 'layer_norm_type' is 'group_norm'; only 'layer_norm' or 'rms_norm'"),
        ({"position_embedding_type": "alibi"}, "field 'position_embedding_type' is 'alibi'; only 'rope' or 'absolute'"),
        ({"logn_attention_scale": True}, "field 'logn_attention_scale' is True; only False is supported"),
        ({"rope_scaling": {"type": "ntk"}}, "field 'rope_scaling.factor' is missing"),
        ({"rope_scaling": {"type": "ntk", "factor": 0.5}}, "field 'rope_scaling.factor' is 0.5, expected a number of"),
        ({"rope_scaling": {"type": "ntk2", "factor": 2.0}}, "field 'rope_scaling.rope_type' is 'ntk2'; known are"),
    ],
)
@pytest.mark.parametrize("model_type", ["new", "gte"])
def test_config_errors(tmp_path: Path, model_type: str, changes: dict[str, Any], message: str) -> None:
    assert_refused(tmp_path, {**NEW, "model_type": model_type, **changes}, message)
