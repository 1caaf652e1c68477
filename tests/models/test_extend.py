"""More positions than a checkpoint has: each method beside its formula, and what keeps its vectors."""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaModel,
    MistralConfig,
    ModernBertConfig,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5EncoderModel,
)

from longspan import Encoder, InputError, _csrc
from longspan.models import build_body
from longspan.models.config import ModelConfig
from longspan.models.extend import Extension, extend_body, stretched_rows
from longspan.program.instructions import Attention, Qkv
from longspan.program.positions import LengthScale, PositionMap

from .formulas import Tensors, heads_of, layer_norm, linear, rms_norm
from .harness import VOCABULARY, Formula, check_errors, edit_config, encoder_of, save, texts_of
from .tiny import DYNAMIC

ORIGINAL, LENGTH = 40, 300
LENGTHS = (0, 5, 37, 38, 39, 77, 78, 79, 131, 298)
"""Of texts, without their two special tokens: around the original positions, and twice these."""

SMALL = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 48,
    "num_attention_heads": 3,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "max_position_embeddings": ORIGINAL,
    "initializer_range": 0.15,
    "pad_token_id": 0,
}
LEARNED = ("grouped", "recurrent", "interpolate")
ROTARY = ("ntk", "interpolate", "self_extend")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("bert"), BertModel(BertConfig(**SMALL)))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("llama"), LlamaModel(LlamaConfig(**SMALL, num_key_value_heads=1)))


# --- formulas --------------------------------------------------------------------------------------------------------


def sharpness(tokens: int) -> float:
    return max(1.0, math.log(tokens) / math.log(ORIGINAL))


def learned_rows(method: str, table: Tensor, tokens: int) -> Tensor:
    """[T, D] what is added at each position."""
    positions = np.arange(tokens)
    if method == "recurrent":
        return table[positions % ORIGINAL]
    if method == "grouped":
        return table[positions // math.ceil(tokens / ORIGINAL)]
    factor = math.ceil(LENGTH / ORIGINAL)
    if tokens <= ORIGINAL:
        return table[positions]
    rows = []
    for position in positions.tolist():
        low, part = divmod(position, factor)
        high = min(low + 1, ORIGINAL - 1)
        rows.append(table[low] * (1 - part / factor) + table[high] * (part / factor))
    return torch.stack(rows)


def bert_formula(method: str, first: int = 0) -> Formula:
    """BERT, whose position table starts at row `first`."""

    def forward(tensors: Tensors, fields: Mapping[str, Any], ids: Tensor) -> Tensor:
        eps, heads = fields["layer_norm_eps"], fields["num_attention_heads"]
        x = tensors["embeddings.word_embeddings.weight"][ids] + tensors["embeddings.token_type_embeddings.weight"][0]
        x = x + learned_rows(method, tensors["embeddings.position_embeddings.weight"][first:], len(ids))
        x = layer_norm(tensors, "embeddings.LayerNorm", x, eps)
        for index in range(fields["num_hidden_layers"]):
            at = f"encoder.layer.{index}"
            q, k, v = (
                heads_of(linear(tensors, f"{at}.attention.self.{part}", x), heads).transpose(0, 1)
                for part in ("query", "key", "value")
            )
            scores = (q * sharpness(len(ids))) @ k.transpose(1, 2) / q.shape[-1] ** 0.5
            context = (torch.softmax(scores, -1) @ v).transpose(0, 1).flatten(1)
            x = layer_norm(
                tensors,
                f"{at}.attention.output.LayerNorm",
                x + linear(tensors, f"{at}.attention.output.dense", context),
                eps,
            )
            up = functional.gelu(linear(tensors, f"{at}.intermediate.dense", x))
            x = layer_norm(tensors, f"{at}.output.LayerNorm", x + linear(tensors, f"{at}.output.dense", up), eps)
        return x

    return Formula(forward)


def turned(x: Tensor, positions: Tensor, inverse: Tensor) -> Tensor:
    """x [H, T, E], turned in halves; the angles have the dtype of x."""
    angles = positions.to(x.dtype)[:, None] * inverse.to(x.dtype)
    cos, sin = angles.cos(), angles.sin()
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def rotary_scores(method: str, q: Tensor, k: Tensor, theta: float) -> Tensor:
    """[H, T, T], as LongEmbed's code computes them."""
    size, tokens = q.shape[-1], q.shape[1]
    places = torch.arange(tokens)
    if method == "ntk":
        theta *= (LENGTH / ORIGINAL) ** (size / (size - 2))
    inverse = theta ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    if method == "interpolate":
        inverse = inverse * ORIGINAL / LENGTH

    def scores(queries: Tensor, keys: Tensor) -> Tensor:
        return turned(q, queries, inverse) @ turned(k, keys, inverse).transpose(1, 2)

    near = scores(places, places)
    if method != "self_extend" or tokens <= ORIGINAL:
        return near
    window = ORIGINAL // 8
    group = 2
    while (LENGTH - 1) // group + window - window // group > ORIGINAL:
        group += 1
    grouped, shifted = places // group, places // group + window - window // group
    before, after = scores(shifted, grouped), scores(grouped, shifted)
    distances = places[:, None] - places
    far = torch.where(distances > 0, before, after)
    return torch.where(distances.abs() < window, near, far)


def llama_formula(method: str, causal: bool = True) -> Formula:
    """Llama, or with sight of both sides."""

    def forward(tensors: Tensors, fields: Mapping[str, Any], ids: Tensor) -> Tensor:
        eps, heads = fields["rms_norm_eps"], fields["num_attention_heads"]
        x = tensors["embed_tokens.weight"][ids]
        seen = torch.ones(len(ids), len(ids), dtype=torch.bool)
        seen = seen.tril() if causal else seen
        for index in range(fields["num_hidden_layers"]):
            at = f"layers.{index}"
            y = rms_norm(tensors, f"{at}.input_layernorm", x, eps)
            q, k, v = (
                heads_of(linear(tensors, f"{at}.self_attn.{part}_proj", y), count).transpose(0, 1)
                for part, count in (("q", heads), ("k", 1), ("v", 1))
            )
            scores = rotary_scores(method, q * sharpness(len(ids)), k, 10000.0) / q.shape[-1] ** 0.5
            weights = torch.softmax(scores.masked_fill(~seen, -torch.inf), -1)
            x = x + linear(tensors, f"{at}.self_attn.o_proj", (weights @ v).transpose(0, 1).flatten(1))
            y = rms_norm(tensors, f"{at}.post_attention_layernorm", x, eps)
            gate, up = (linear(tensors, f"{at}.mlp.{part}_proj", y) for part in ("gate", "up"))
            x = x + linear(tensors, f"{at}.mlp.down_proj", functional.silu(gate) * up)
        return rms_norm(tensors, "norm", x, eps)

    return Formula(forward)


@pytest.mark.parametrize("method", LEARNED)
def test_learned_positions(bert: Path, method: str) -> None:
    check_errors(bert, bert_formula(method), texts_of(LENGTHS), extend=method, max_seq_length=LENGTH)


@pytest.mark.parametrize("method", LEARNED)
def test_a_table_that_starts_later(tmp_path: Path, method: str) -> None:
    """RoBERTa's first token has row 2."""
    config = RobertaConfig(**{**SMALL, "max_position_embeddings": ORIGINAL + 2, "pad_token_id": 1})
    folder = save(tmp_path, RobertaModel(config, add_pooling_layer=False))
    check_errors(folder, bert_formula(method, 2), texts_of(LENGTHS), extend=method, max_seq_length=LENGTH)


@pytest.mark.parametrize("method", ROTARY)
def test_rotary_positions(llama: Path, method: str) -> None:
    check_errors(llama, llama_formula(method), texts_of(LENGTHS), extend=method, max_seq_length=LENGTH)


@pytest.mark.parametrize("method", ROTARY)
def test_rotary_positions_of_both_sides(llama: Path, tmp_path: Path, method: str) -> None:
    for path in llama.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    folder = edit_config(tmp_path, is_causal=False)
    check_errors(folder, llama_formula(method, causal=False), texts_of(LENGTHS), extend=method, max_seq_length=LENGTH)


# --- what keeps its vectors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isa", _csrc.tiers())
@pytest.mark.parametrize(("name", "method"), [*(("bert", method) for method in LEARNED), ("llama", "self_extend")])
def test_texts_within_the_original_positions_keep_their_bits(
    request: pytest.FixtureRequest, name: str, method: str, isa: str
) -> None:
    folder, texts = request.getfixturevalue(name), texts_of([n for n in LENGTHS if n + 2 <= ORIGINAL])
    assert len(texts) == 4
    plain, extended = encoder_of(folder, isa), encoder_of(folder, isa, extend=method)
    assert plain.encode(texts).tobytes() == extended.encode(texts).tobytes()


@pytest.mark.parametrize(
    ("name", "method"), [*(("bert", method) for method in LEARNED), *(("llama", method) for method in ROTARY)]
)
@pytest.mark.parametrize("isa", _csrc.tiers())
def test_same_text_same_bits(request: pytest.FixtureRequest, name: str, method: str, isa: str) -> None:
    """Whatever the batch, and however many threads."""
    texts = texts_of(LENGTHS)
    options = {"extend": method, "max_seq_length": LENGTH}
    one, two = (encoder_of(request.getfixturevalue(name), isa, threads=n, **options) for n in (1, 2))
    together = one.encode(texts)
    assert together.tobytes() == two.encode(texts[::-1])[::-1].tobytes()
    for text, vector in zip(texts, together, strict=True):
        assert vector.tobytes() == two.encode(text).tobytes()


@pytest.mark.parametrize(
    ("name", "method"), [*(("bert", method) for method in LEARNED), *(("llama", method) for method in ROTARY)]
)
def test_the_reference_executor_agrees(request: pytest.FixtureRequest, name: str, method: Any) -> None:
    folder, texts = request.getfixturevalue(name), texts_of(LENGTHS)
    ours, theirs = (
        Encoder(folder, extend=method, max_seq_length=LENGTH, backend=backend) for backend in (None, "reference")
    )
    np.testing.assert_allclose(ours.encode(texts), theirs.encode(texts), atol=5e-6)


def test_stretched_rows_hold_the_old_ones() -> None:
    table = np.random.default_rng(0).standard_normal((7, 5), dtype=np.float32)
    longer = stretched_rows(table, first=2, factor=4)
    assert longer.shape == (2 + 5 * 4, 5)
    np.testing.assert_array_equal(longer[:2], table[:2])
    np.testing.assert_array_equal(longer[2::4], table[2:])
    np.testing.assert_allclose(longer[4], (table[2] + table[3]) / 2, rtol=1e-6)
    np.testing.assert_array_equal(longer[-3:], np.repeat(table[-1:], 3, 0))


# --- which layers, which length --------------------------------------------------------------------------------------


def body_of(config: Any, folder: Path) -> Any:
    config.save_pretrained(folder)
    path = folder / "config.json"
    return build_body(ModelConfig.read(path))


@pytest.mark.parametrize("method", ROTARY)
def test_layers_with_a_narrow_window_stay_as_they_are(tmp_path: Path, method: Any) -> None:
    config = ModernBertConfig(**{**SMALL, "num_hidden_layers": 6, "num_attention_heads": 3, "local_attention": 16})
    plain = body_of(config, tmp_path)
    extended = extend_body(plain, Extension(method))
    assert extended.max_positions == 8 * ORIGINAL
    changed = {old.stage for old, new in zip(plain.instructions, extended.instructions, strict=True) if old != new}
    assert changed == {1, 4}, "every third layer sees all"


def test_where_all_layers_see_a_window_it_is_the_original_length_and_is_opened(tmp_path: Path) -> None:
    """As Mistral 7B, whose positions are more than its window."""
    config = MistralConfig(**SMALL, num_key_value_heads=1, sliding_window=16)
    extended = extend_body(body_of(config, tmp_path), Extension("ntk"))
    assert extended.max_positions == 8 * 16
    steps = [step for step in extended.instructions if isinstance(step, Qkv | Attention)]
    assert all((step.left, step.right) == (None, 0) for step in steps if isinstance(step, Attention))
    assert all(step.q_scale == LengthScale(16) for step in steps if isinstance(step, Qkv))


def test_groups_are_those_of_longembed(tmp_path: Path) -> None:
    for positions in (512, 4096):
        config = LlamaConfig(**{**SMALL, "max_position_embeddings": positions})
        extended = extend_body(body_of(config, tmp_path), Extension("self_extend", 8 * positions))
        extends = {step.self_extend for step in extended.instructions if isinstance(step, Attention)}
        assert [(it.group, it.near) for it in extends if it] == [(9, positions // 8)]


@pytest.mark.parametrize(("kind", "rows"), [("recurrent", [0, 1, 2, 0, 1]), ("grouped", [0, 0, 1, 1, 2])])
def test_rows_of_positions(kind: Any, rows: list[int]) -> None:
    positions, bounds = np.array([0, 1, 2, 0, 1, 2, 3, 4], np.int32), np.array([0, 3, 8, 8])
    assert PositionMap(kind, 3).of_batch(positions, bounds).tolist() == [0, 1, 2, *rows]


def test_windows_are_as_long_as_the_extension(bert: Path) -> None:
    encoder = Encoder(bert, extend="grouped")
    assert encoder.max_seq_length == 8 * ORIGINAL
    (text,) = texts_of([8 * ORIGINAL - 2])
    assert len(encoder.encode_chunks(text).windows) == 1
    encoder.max_seq_length = 100
    with pytest.raises(InputError, match="expected an integer from 1 to 320"):
        encoder.max_seq_length = 321


def test_the_length_of_the_extension_counts_more_than_the_folder_s_own(bert: Path, tmp_path: Path) -> None:
    Encoder(bert, max_seq_length=20).save(tmp_path / "short")
    assert Encoder(tmp_path / "short").max_seq_length == 20
    assert Encoder(tmp_path / "short", extend="recurrent").max_seq_length == 8 * ORIGINAL


def test_pickling_keeps_it(bert: Path) -> None:
    encoder = Encoder(bert, extend="interpolate", max_seq_length=LENGTH)
    again = pickle.loads(pickle.dumps(encoder))
    (text,) = texts_of([200])
    assert again.max_seq_length == LENGTH
    assert again.encode(text).tobytes() == encoder.encode(text).tobytes()


def test_the_first_layers_of_an_extended_model(bert: Path, tmp_path: Path) -> None:
    """As the extension of a model that has no more layers."""
    model = BertModel.from_pretrained(str(bert))
    del model.encoder.layer[1:]
    model.config.num_hidden_layers = 1
    model.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((bert / "tokenizer.json").read_bytes())
    (text,) = texts_of([200])
    ours, cut = Encoder(bert, extend="grouped", layers=1), Encoder(tmp_path, extend="grouped")
    np.testing.assert_array_equal(ours.encode(text), cut.encode(text))


# --- errors ----------------------------------------------------------------------------------------------------------


def refused(folder: Path, message: str, **options: Any) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        Encoder(folder, **options)


def test_methods_that_do_not_fit(bert: Path, llama: Path) -> None:
    fits = "grouped, recurrent, interpolate"
    for method in ("ntk", "self_extend"):
        refused(bert, f"extend={method!r} does not fit the positions of bert; what fits is {fits}", extend=method)
    fits = "ntk, interpolate, self_extend"
    for method in ("grouped", "recurrent"):
        refused(llama, f"extend={method!r} does not fit the positions of llama; what fits is {fits}", extend=method)


def test_options_that_are_not_usable(bert: Path) -> None:
    known = "ntk, interpolate, grouped, recurrent, self_extend"
    refused(bert, f"extend is 'yarn', expected one of {known}", extend="yarn")
    refused(bert, "max_seq_length is 40, but bert has 40 positions without extend", extend="grouped", max_seq_length=40)
    for length in (0, True, 2.5, 10**9):
        refused(bert, f"max_seq_length is {length!r}, expected", extend="grouped", max_seq_length=length)
    refused(bert, "without adapter, layers, tap, extend", extend="grouped", backend="transformers")


def test_e5_base_4k(tmp_path: Path) -> None:
    """A table that was stretched and trained: short texts take every eighth row, longer ones every row."""
    config = BertConfig(**{**SMALL, "num_hidden_layers": 1, "max_position_embeddings": 4096})
    folder = edit_config(save(tmp_path, BertModel(config)), _name_or_path="/mnt/default/longembed/models/intfloat/e5")
    model, encoder = BertModel.from_pretrained(str(folder)).eval(), Encoder(folder)
    for count in (1, 510, 511):
        (text,) = texts_of((count,))
        ids = torch.tensor([encoder.tokenizer.encode(text).ids])
        positions = torch.arange(count + 2)[None] * (8 if count + 2 <= 512 else 1)
        with torch.inference_mode():
            expected = model(input_ids=ids, position_ids=positions).last_hidden_state[0].mean(0).numpy()
        np.testing.assert_allclose(encoder.encode(text), expected, atol=1e-5)
    refused(folder, "extend does not fit bert: its positions depend on a text's length already", extend="grouped")


def test_positions_that_depend_on_the_length_already(tmp_path: Path) -> None:
    folder = save(tmp_path, LlamaModel(LlamaConfig(**SMALL, rope_parameters=DYNAMIC)))
    refused(folder, "extend does not fit llama: its positions depend on a text's length already", extend="ntk")


def test_positions_that_nothing_extends(tmp_path: Path) -> None:
    config = T5Config(vocab_size=len(VOCABULARY), d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4)
    folder = save(tmp_path, T5EncoderModel(config))
    refused(folder, "extend='grouped' does not fit the positions of t5, nor does another method", extend="grouped")
