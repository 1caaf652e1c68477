"""Jina v2, which transformers lacks, as a formula in each of its two forms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from longspan import Encoder
from longspan.program.relative import alibi_slopes

from .formulas import Tensors, attention, heads_of, layer_norm, linear
from .harness import VOCABULARY, Formula, assert_refused, check, edit_tensors, save_tensors, texts_of

BASE: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": len(VOCABULARY),
    "hidden_size": 64,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "max_position_embeddings": 160,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
    "position_embedding_type": "alibi",
    "feed_forward_type": "geglu",
}
CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "reglu": {"feed_forward_type": "reglu"},
    "head size 8, 3 heads": {"hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 17},
    "head size 16, 12 heads": {"hidden_size": 192, "num_attention_heads": 12, "num_hidden_layers": 1},
    "head size 40, one head": {"hidden_size": 40, "num_attention_heads": 1, "type_vocab_size": 1},
    "head size 64, 5 heads": {"hidden_size": 320, "num_attention_heads": 5, "num_hidden_layers": 1},
    "head size 128, 2 heads": {"hidden_size": 256, "num_attention_heads": 2, "intermediate_size": 515},
    "great eps": {"layer_norm_eps": 0.1, "num_hidden_layers": 4},
}


def fields_of(changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**BASE, **changes}.items() if value is not None}


def shapes_of(fields: Mapping[str, Any], code: bool) -> dict[str, tuple[int, ...]]:
    d, f = fields["hidden_size"], fields["intermediate_size"]
    scale = {f"embeddings.{name}": (d,) for name in ("LayerNorm.weight", "LayerNorm.bias")}
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (fields["vocab_size"], d),
        "embeddings.token_type_embeddings.weight": (fields["type_vocab_size"], d),
        **scale,
    }
    gate, down = ("up_gated_layer", "down_layer") if code else ("gated_layers", "wo")
    norms = ["attention.output.LayerNorm", *([] if code else ["mlp.layernorm"])]
    if code:
        norms += ["attention.self.layer_norm_q", "attention.self.layer_norm_k", "layer_norm_1", "layer_norm_2"]
    for layer in range(fields["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= {f"{at}.attention.{name}.weight": (d, d), f"{at}.attention.{name}.bias": (d,)}
        for name in norms:
            shapes |= {f"{at}.{name}.weight": (d,), f"{at}.{name}.bias": (d,)}
        shapes[f"{at}.mlp.{gate}.weight"] = (2 * f, d)
        shapes |= {f"{at}.mlp.{down}.weight": (d, f), f"{at}.mlp.{down}.bias": (d,)}
    return shapes


def slopes_of(heads: int) -> list[float]:
    """As in https://github.com/ofirpress/attention_with_linear_biases."""

    def of_power(n: int) -> list[float]:
        start = 2 ** (-(2 ** -(math.log2(n) - 3)))
        return [start * start**i for i in range(n)]

    if math.log2(heads).is_integer():
        return of_power(heads)
    power = 2 ** math.floor(math.log2(heads))
    return of_power(power) + slopes_of(2 * power)[0::2][: heads - power]


def jina(tensors: Tensors, fields: Mapping[str, Any], ids: Tensor, *, code: bool) -> Tensor:
    heads, eps = fields["num_attention_heads"], fields["layer_norm_eps"]
    act = functional.relu if fields["feed_forward_type"] == "reglu" else functional.gelu
    places = torch.arange(len(ids))
    distances = (places[:, None] - places).abs()
    x = tensors["embeddings.word_embeddings.weight"][ids] + tensors["embeddings.token_type_embeddings.weight"][0]
    x = layer_norm(tensors, "embeddings.LayerNorm", x, eps)
    bias = (-torch.tensor(slopes_of(heads))[:, None, None] * distances).to(x.dtype)
    for layer in range(fields["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"
        q, k, v = (linear(tensors, f"{at}.attention.self.{name}", x) for name in ("query", "key", "value"))
        if code:
            q = layer_norm(tensors, f"{at}.attention.self.layer_norm_q", q, eps)
            k = layer_norm(tensors, f"{at}.attention.self.layer_norm_k", k, eps)
        q, k, v = (heads_of(part, heads) for part in (q, k, v))
        y = linear(tensors, f"{at}.attention.output.dense", attention(q, k, v, bias))
        y = layer_norm(tensors, f"{at}.attention.output.LayerNorm", y + x, eps)
        if code:
            x = layer_norm(tensors, f"{at}.layer_norm_1", x + y, eps)
            up, gate = linear(tensors, f"{at}.mlp.up_gated_layer", x).chunk(2, -1)
            x = layer_norm(
                tensors, f"{at}.layer_norm_2", x + linear(tensors, f"{at}.mlp.down_layer", up * act(gate)), eps
            )
        else:
            gate, up = linear(tensors, f"{at}.mlp.gated_layers", y).chunk(2, -1)
            x = layer_norm(tensors, f"{at}.mlp.layernorm", linear(tensors, f"{at}.mlp.wo", act(gate) * up) + y, eps)
    return x


def formula(code: bool) -> Formula:
    return Formula(lambda tensors, fields, ids: jina(tensors, fields, ids, code=code))


@pytest.mark.parametrize("code", [False, True], ids=["text", "code"])
@pytest.mark.parametrize("name", CONFIGS)
def test_jina(tmp_path: Path, name: str, code: bool) -> None:
    fields = fields_of(CONFIGS[name])
    check(save_tensors(tmp_path, fields, shapes_of(fields, code)), formula(code))


@pytest.mark.parametrize("code", [False, True], ids=["text", "code"])
def test_long_texts(tmp_path: Path, code: bool) -> None:
    fields = fields_of({"max_position_embeddings": 1000})
    check(save_tensors(tmp_path, fields, shapes_of(fields, code)), formula(code), texts_of((700, 3)))


@pytest.mark.parametrize("code", [False, True], ids=["text", "code"])
def test_weights_of_a_language_model(tmp_path: Path, code: bool) -> None:
    fields = fields_of({})
    folder = save_tensors(tmp_path / "plain", fields, shapes_of(fields, code), torch.bfloat16)
    other = save_tensors(tmp_path / "prefixed", fields, shapes_of(fields, code), torch.bfloat16)
    edit_tensors(other, lambda name: f"bert.{name}")
    vectors = [Encoder(path).encode(["a b c"]) for path in (folder, other)]
    assert (vectors[0] == vectors[1]).all()
    check(folder, formula(code))


@pytest.mark.parametrize("heads", range(1, 34))
def test_slopes(heads: int) -> None:
    assert alibi_slopes(heads) == pytest.approx(slopes_of(heads), rel=1e-12)


def test_maximum(tmp_path: Path) -> None:
    fields = fields_of({})
    assert Encoder(save_tensors(tmp_path, fields, shapes_of(fields, False))).max_seq_length == 160


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": None}, "field 'hidden_size' is missing"),
        ({"feed_forward_type": "original"}, "field 'feed_forward_type' is 'original'; only 'geglu' or 'reglu'"),
        ({"num_attention_heads": 5}, "hidden_size 64 over num_attention_heads 5 gives no head size"),
        ({"is_decoder": True}, "field 'is_decoder' is True; only False is supported"),
        ({"position_embedding_type": "relative"}, "field 'position_embedding_type' is 'relative'; only 'absolute'"),
        ({"position_embedding_type": 1}, "field 'position_embedding_type' is 1, expected a string"),
    ],
)
def test_config_errors(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert_refused(tmp_path, {**BASE, **changes}, message)
