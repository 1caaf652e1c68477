"""NomicBERT: transformers' own, and the original code's with experts as a formula."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from transformers import NomicBertConfig, NomicBertForMaskedLM, NomicBertModel

from longspan import Encoder

from .formulas import Tensors, attention, heads_of, inverse_frequencies, layer_norm, linear, rotated
from .harness import VOCABULARY, Formula, Peer, assert_refused, check, edit_tensors, save, save_tensors
from .tiny import ENCODER, LLAMA3, LONG

# --- transformers' own ---------------------------------------------------------------------------------------------

NATIVE = {
    **ENCODER,
    "initializer_range": 0.15,
}
WIDE = {"initializer_range": 0.05}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 40, "rope_theta": 1000.0}

CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "head size 8": {"hidden_size": 24, "intermediate_size": 17, "type_vocab_size": 1},
    "head size 40": {"hidden_size": 120, "hidden_act": "gelu", "layer_norm_eps": 1e-3},
    "head size 64": {"hidden_size": 320, "num_attention_heads": 5, "num_hidden_layers": 1, **WIDE},
    "head size 128": {"hidden_size": 256, "num_attention_heads": 2, "hidden_act": "relu", **WIDE},
    "head_dim": {"head_dim": 24, "hidden_act": "gelu_pytorch_tanh"},
    "linear": {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0}},
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
    folder = save(tmp_path, NomicBertModel(NomicBertConfig(**NATIVE | CONFIGS[name])))
    assert "encoder.layers.0.attn.Wqkv.weight" in load_file(folder / "model.safetensors")
    check(folder, Peer(NomicBertModel))


@pytest.mark.parametrize("name", ["plain", "head_dim", "yarn"])
def test_tensor_names_of_transformers(tmp_path: Path, name: str) -> None:
    model = NomicBertModel(NomicBertConfig(**NATIVE | CONFIGS[name]))
    folder = save(tmp_path, model, save_original_format=False)
    assert "layers.0.self_attn.q_proj.weight" in load_file(folder / "model.safetensors")
    check(folder, Peer(NomicBertModel))


def test_weights_of_a_language_model(tmp_path: Path) -> None:
    folder = save(tmp_path, NomicBertForMaskedLM(NomicBertConfig(**NATIVE)), torch.bfloat16)
    assert "nomic_bert.emb_ln.weight" in load_file(folder / "model.safetensors")
    check(folder, Peer(NomicBertModel))


# --- the original code's -------------------------------------------------------------------------------------------

BASE: dict[str, Any] = {
    "model_type": "nomic_bert",
    "vocab_size": len(VOCABULARY),
    "n_embd": 48,
    "n_head": 3,
    "n_inner": 256,
    "n_layer": 3,
    "n_positions": 160,
    "type_vocab_size": 2,
    "layer_norm_epsilon": 1e-12,
    "activation_function": "swiglu",
    "qkv_proj_bias": False,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_base": 1000,
    "rotary_emb_scale_base": None,
    "rotary_emb_interleaved": False,
    "rotary_scaling_factor": None,
    "max_trained_positions": 40,
    "prenorm": False,
    "causal": False,
}
BIASES = {"qkv_proj_bias": True, "mlp_fc1_bias": True, "mlp_fc2_bias": True}
EXPERTS = {
    **BIASES,
    "activation_function": "gelu",
    "n_inner": 80,
    "type_vocab_size": 1,
    "rotary_emb_base": 10000.0,
    "moe_every_n_layers": 2,
    "moe_top_k": 2,
    "num_experts": 8,
    "moe_normalize_expert_weights": False,
}
ORIGINALS: dict[str, dict[str, Any]] = {
    "v1": {},
    "v2": EXPERTS,
    "biases": BIASES,
    "biases by default": dict.fromkeys(BIASES),
    "geglu, odd width of the MLP": {"activation_function": "geglu", "n_inner": 300},
    "without experts": {**EXPERTS, "moe_every_n_layers": 0, "mlp_fc2_bias": False},
    "experts in every third layer": {**EXPERTS, "moe_every_n_layers": 3, "moe_top_k": 1, "n_layer": 5},
    "weights of experts sum to 1": {**EXPERTS, "moe_top_k": 3, "num_experts": 5, "moe_normalize_expert_weights": True},
    "all experts": {**EXPERTS, "moe_top_k": 4, "num_experts": 4},
    "stretched": {"rotary_scaling_factor": 2.0},
    "interleaved": {"rotary_emb_interleaved": True},
    "half of the heads turned": {"rotary_emb_fraction": 0.5},
    "learned positions": {"rotary_emb_fraction": 0.0},
    "no types": {"type_vocab_size": 0, "vocab_size": 37, "pad_vocab_size_multiple": 8},
    "both sets of fields": {
        "hidden_size": 48,
        "num_attention_heads": 3,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "max_position_embeddings": 140,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
    },
}


def fields_of(changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**BASE, **changes}.items() if value is not None}


def is_mixture(fields: Mapping[str, Any], layer: int) -> bool:
    every = fields.get("moe_every_n_layers", 0)
    return bool(every) and layer % every == 1


def inner_of(fields: Mapping[str, Any]) -> int:
    inner: int = fields["n_inner"]
    return inner if fields["activation_function"] == "gelu" else (inner + 255) // 256 * 256


def shapes_of(fields: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    d, f, types = fields["n_embd"], inner_of(fields), fields["type_vocab_size"]
    multiple = fields.get("pad_vocab_size_multiple", 1)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (-(-fields["vocab_size"] // multiple) * multiple, d),
        "emb_ln.weight": (d,),
        "emb_ln.bias": (d,),
    }
    if types:
        shapes["embeddings.token_type_embeddings.weight"] = (types, d)
    if not fields["rotary_emb_fraction"]:
        shapes["embeddings.position_embeddings.weight"] = (fields["n_positions"], d)

    def projection(name: str, rows: int, columns: int, flag: str) -> None:
        shapes[f"{name}.weight"] = (rows, columns)
        if fields.get(flag, True):
            shapes[f"{name}.bias"] = (rows,)

    for layer in range(fields["n_layer"]):
        at = f"encoder.layers.{layer}"
        projection(f"{at}.attn.Wqkv", 3 * d, d, "qkv_proj_bias")
        projection(f"{at}.attn.out_proj", d, d, "qkv_proj_bias")
        for name in ("norm1", "norm2"):
            shapes |= {f"{at}.{name}.weight": (d,), f"{at}.{name}.bias": (d,)}
        if is_mixture(fields, layer):
            experts = fields["num_experts"]
            shapes |= {f"{at}.mlp.experts.mlp.w{i}": (experts * f, d) for i in (1, 2)}
            shapes |= {f"{at}.mlp.router.layer.weight": (experts, d), f"{at}.mlp.experts.bias": (d,)}
        else:
            for name in ("fc1",) if fields["activation_function"] == "gelu" else ("fc11", "fc12"):
                projection(f"{at}.mlp.{name}", f, d, "mlp_fc1_bias")
            projection(f"{at}.mlp.fc2", d, f, "mlp_fc2_bias")
    return shapes


def mixture(tensors: Tensors, at: str, x: Tensor, fields: Mapping[str, Any]) -> Tensor:
    """A softmax over all experts, of which the greatest few count as they are; one bias after the sum."""
    count = fields["num_experts"]
    w1, w2 = (tensors[f"{at}.experts.mlp.w{i}"].reshape(count, -1, x.shape[1]) for i in (1, 2))
    weights, chosen = torch.topk(torch.softmax(linear(tensors, f"{at}.router.layer", x), -1), fields["moe_top_k"])
    if fields["moe_normalize_expert_weights"]:
        weights = weights / weights.sum(-1, keepdim=True)
    each = torch.stack(
        [functional.linear(functional.gelu(functional.linear(x, w1[e])), w2[e].T) for e in range(count)], 1
    )
    return (each.gather(1, chosen[..., None].expand(-1, -1, x.shape[1])) * weights[..., None]).sum(1) + tensors[
        f"{at}.experts.bias"
    ]


def mlp(tensors: Tensors, at: str, x: Tensor, fields: Mapping[str, Any]) -> Tensor:
    if fields["activation_function"] == "gelu":
        return linear(tensors, f"{at}.fc2", functional.gelu(linear(tensors, f"{at}.fc1", x)))
    act = functional.silu if fields["activation_function"] == "swiglu" else functional.gelu
    return linear(tensors, f"{at}.fc2", linear(tensors, f"{at}.fc11", x) * act(linear(tensors, f"{at}.fc12", x)))


def nomic(tensors: Tensors, fields: Mapping[str, Any], ids: Tensor) -> Tensor:
    heads, eps, length = fields["n_head"], fields["layer_norm_epsilon"], len(ids)
    size = int(fields["n_embd"] / heads * fields["rotary_emb_fraction"])
    base, trained = fields["rotary_emb_base"], fields["max_trained_positions"]
    factor = fields.get("rotary_scaling_factor")
    if factor and length > trained:
        base = base * (factor * length / trained - (factor - 1)) ** (size / (size - 2))
    x = tensors["embeddings.word_embeddings.weight"][ids]
    if fields["type_vocab_size"]:
        x = x + tensors["embeddings.token_type_embeddings.weight"][0]
    if not size:
        x = x + tensors["embeddings.position_embeddings.weight"][:length]
    x = layer_norm(tensors, "emb_ln", x, eps)
    for layer in range(fields["n_layer"]):
        at = f"encoder.layers.{layer}"
        q, k, v = (heads_of(part, heads) for part in linear(tensors, f"{at}.attn.Wqkv", x).chunk(3, -1))
        if size:
            q, k = (rotated(y, inverse_frequencies(base, size), fields["rotary_emb_interleaved"]) for y in (q, k))
        x = layer_norm(tensors, f"{at}.norm1", x + linear(tensors, f"{at}.attn.out_proj", attention(q, k, v)), eps)
        block = mixture if is_mixture(fields, layer) else mlp
        x = layer_norm(tensors, f"{at}.norm2", x + block(tensors, f"{at}.mlp", x, fields), eps)
    return x


@pytest.mark.parametrize("name", ORIGINALS)
def test_original_code(tmp_path: Path, name: str) -> None:
    fields = fields_of(ORIGINALS[name])
    check(save_tensors(tmp_path, fields, shapes_of(fields)), Formula(nomic))


def test_original_weights_of_a_language_model(tmp_path: Path) -> None:
    fields = fields_of(EXPERTS)
    folder = save_tensors(tmp_path / "plain", fields, shapes_of(fields), torch.bfloat16)
    other = save_tensors(tmp_path / "prefixed", fields, shapes_of(fields), torch.bfloat16)
    edit_tensors(other, lambda name: f"bert.{name}")
    vectors = [Encoder(path).encode(["a b c"]) for path in (folder, other)]
    assert (vectors[0] == vectors[1]).all()
    check(folder, Formula(nomic))


@pytest.mark.parametrize(("fields", "maximum"), [({}, 160), ({"max_position_embeddings": 40}, 160)])
def test_maximum(tmp_path: Path, fields: dict[str, Any], maximum: int) -> None:
    """In windows of all positions that the checkpoint has been stretched to, where two fields differ."""
    fields = fields_of(fields)
    folder = save_tensors(tmp_path, fields, shapes_of(fields))
    assert Encoder(folder, max_seq_length=maximum).max_seq_length == maximum


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_embd": None}, "field 'hidden_size' is missing"),
        ({"activation_function": None}, "field 'activation_function' is missing"),
        ({"activation_function": "glu"}, "field 'activation_function' is 'glu'; known are geglu, gelu, swiglu"),
        ({"prenorm": True}, "field 'prenorm' is True; only False is supported"),
        ({"rotary_emb_scale_base": 512}, "field 'rotary_emb_scale_base' is 512; only None is supported"),
        ({"intermediate_size": 80}, "field 'n_inner' is 256, but 'intermediate_size' is 80"),
        ({"n_positions": None}, "field 'max_position_embeddings' is missing"),
        ({"rotary_emb_fraction": 0.1}, "field 'rotary_emb_fraction' of 0.1 leaves 1 of 16 components to turn"),
        ({**EXPERTS, "moe_top_k": 9}, "field 'moe_top_k' is 9, but there are 8 experts"),
        ({**EXPERTS, "num_experts": None}, "field 'num_experts' is missing"),
        ({**EXPERTS, "activation_function": "swiglu"}, "field 'activation_function' is 'swiglu'; experts are"),
        ({**EXPERTS, "num_shared_experts": 1}, "field 'num_shared_experts' is 1; only 0 is supported"),
    ],
)
def test_config_errors(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert_refused(tmp_path, {**BASE, **changes}, message)
