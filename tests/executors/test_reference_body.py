"""The reference executor as a whole: against transformers, packed against one by one, and how it takes its weights."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertModel

from longspan.batch import PackedBatch, Partials
from longspan.checkpoint.tensor_view import TensorView
from longspan.errors import CheckpointError
from longspan.executors.reference import ReferenceExecutor, execute, load_weights
from longspan.models import build_body
from longspan.models.config import ModelConfig
from longspan.models.family import Body
from longspan.program.instructions import Combine, Linear, Normalize
from longspan.program.operands import Buffer, Rows, Weight
from longspan.program.program import Program

LENGTHS = (7, 1, 23, 2, 40)


def view(name: str, tensor: Tensor) -> TensorView:
    """A tensor as part of a mapped file."""
    dtype = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}[tensor.dtype]
    bits = tensor.view(torch.int16).numpy().view(np.uint16) if dtype == "BF16" else tensor.numpy()
    memory = mmap.mmap(-1, max(1, bits.nbytes))
    memory[: bits.nbytes] = bits.tobytes()
    data = np.frombuffer(memory, bits.dtype, bits.size).reshape(bits.shape)
    return TensorView(name, dtype, bits.shape, data, Path("memory"), memory, 0)


def segments_partials(lengths: Sequence[int]) -> Partials:
    """One partial and one vector per segment, with equal weights."""
    bounds = np.cumsum([0, *lengths], dtype=np.int64)
    count = len(lengths)
    weights = np.ones(count, np.float32), np.zeros(count, np.float32)
    return Partials(bounds[:-1], bounds[1:], *weights, np.arange(count + 1, dtype=np.int64))


def pack(texts: Sequence[npt.NDArray[np.int32]], kinds: int = 1) -> PackedBatch:
    lengths = [len(ids) for ids in texts]
    return PackedBatch(
        ids=np.concatenate(texts),
        positions=np.concatenate([np.arange(n, dtype=np.int32) for n in lengths]),
        cu_seqlens=np.cumsum([0, *lengths], dtype=np.int64),
        partials=(segments_partials(lengths),) * kinds,
    )


class Tiny:
    """A random BERT in float64, as transformers has it and as a program."""

    def __init__(self, activation: str = "gelu") -> None:
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=61,
            hidden_size=40,
            num_hidden_layers=3,
            num_attention_heads=5,
            intermediate_size=72,
            max_position_embeddings=43,
            hidden_act=activation,
            initializer_range=0.3,
        )
        self.model = BertModel(config, add_pooling_layer=False).double().eval()
        for name, parameter in self.model.named_parameters():
            if name.endswith("bias") or "LayerNorm" in name:
                parameter.data += 0.1 * torch.randn_like(parameter)
        self.body: Body = build_body(ModelConfig(Path("config.json"), config.to_dict()))
        self.tensors = {name: view(name, tensor) for name, tensor in self.model.state_dict().items()}
        rng = np.random.default_rng(0)
        self.texts = [rng.integers(0, 61, length).astype(np.int32) for length in LENGTHS]

    def program(self) -> Program:
        return self.body.pooled(["sum", "maximum"])

    def tokens(self, texts: Sequence[npt.NDArray[np.int32]], dtype: torch.dtype = torch.float64) -> Tensor:
        """The token vectors of a packed batch."""
        weights = load_weights(self.program(), self.tensors, dtype=dtype)
        return execute(self.program(), {}, weights, pack(texts, 2))[self.body.output.name]

    def transformers(self) -> list[Tensor]:
        """The token vectors of each text by itself, as transformers computes them."""
        with torch.inference_mode():
            return [self.model(torch.tensor(ids[None], dtype=torch.int64)).last_hidden_state[0] for ids in self.texts]


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    return Tiny()


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu", "silu"])
def test_every_token_equals_that_of_transformers(activation: str) -> None:
    tiny = Tiny(activation)
    torch.testing.assert_close(tiny.tokens(tiny.texts), torch.cat(tiny.transformers()), rtol=1e-10, atol=1e-10)


def test_packed_equals_one_by_one(tiny: Tiny) -> None:
    alone = torch.cat([tiny.tokens([ids]) for ids in tiny.texts])
    torch.testing.assert_close(tiny.tokens(tiny.texts), alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-7), (torch.float32, 1e-5), (torch.bfloat16, 0.1)])
def test_pooled_rows_in_any_dtype(tiny: Tiny, dtype: torch.dtype, close: float) -> None:
    executor = ReferenceExecutor(tiny.program(), tiny.tensors, dtype=dtype)
    sums, maxima = executor.run_body(pack(tiny.texts, 2))
    assert sums.dtype == maxima.dtype == np.float32
    truth = [rows.numpy() for rows in tiny.transformers()]
    lengths = np.array(LENGTHS)[:, None]
    np.testing.assert_allclose(sums / lengths, [rows.mean(0) for rows in truth], rtol=0, atol=close)
    np.testing.assert_allclose(maxima, [rows.max(0) for rows in truth], rtol=0, atol=3 * close)


def test_body_then_tail(tiny: Tiny) -> None:
    batch = pack(tiny.texts, 2)
    executor = ReferenceExecutor(tiny.program(), tiny.tensors)
    given = tiny.program().outputs
    x, y, out = (Buffer(name, Rows.VECTORS, width) for name, width in (("x", 80), ("y", 24), ("out", 10)))
    dense = Weight(("dense",), (24, 80))
    tail = Program(
        "tail",
        (
            Combine(stage=0, partials=given[0], out=x, kind="mean", index=0),
            Combine(stage=0, partials=given[1], out=x, kind="maximum", index=1, column=40),
            Linear(stage=0, x=x, out=y, weight=dense, activation="tanh"),
            Normalize(stage=0, x=y, out=out, unit=True),
        ),
        outputs=(out,),
        inputs=given,
    )
    values = 0.1 * torch.randn(24, 80, dtype=torch.float32)
    vectors = executor.run_tail(tail, {"dense": view("dense", values)}, executor.run_body(batch), batch.partials)
    pooled = torch.stack([torch.cat([rows.mean(0), rows.amax(0)]) for rows in tiny.transformers()])
    cut = torch.tanh(pooled @ values.double().T)[:, :10]
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, cut / cut.norm(dim=1, keepdim=True), rtol=0, atol=1e-5)


def test_no_tokens(tiny: Tiny) -> None:
    empty = np.zeros(0, np.int32)
    executor = ReferenceExecutor(tiny.program(), tiny.tensors)
    batch = PackedBatch(empty, empty, np.zeros(1, np.int64), (segments_partials([]),) * 2)
    assert [rows.shape for rows in executor.run_body(batch)] == [(0, 40), (0, 40)]


def test_nan_stays_in_its_text(tiny: Tiny) -> None:
    tensors = dict(tiny.tensors)
    words = tiny.model.embeddings.word_embeddings.weight.detach().clone()
    words[tiny.texts[2][5]] = torch.nan
    tensors["embeddings.word_embeddings.weight"] = view("words", words)
    batch = pack(
        [np.delete(ids, np.isin(ids, tiny.texts[2][5])) if n != 2 else ids for n, ids in enumerate(tiny.texts)], 2
    )
    clean, spoilt = (ReferenceExecutor(tiny.program(), each).run_body(batch)[0] for each in (tiny.tensors, tensors))
    assert np.isnan(spoilt[2]).all()
    others = np.delete(spoilt, 2, axis=0)
    np.testing.assert_array_equal(others, np.delete(clean, 2, axis=0))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_weights_keep_their_values(dtype: torch.dtype) -> None:
    values = [torch.randn(3, 8).to(dtype), torch.randn(3, 8).to(dtype)]
    weight, x = Weight(("a", "b"), (6, 8)), Buffer("x", Rows.TOKENS, 8)
    op = Linear(stage=0, x=x, out=Buffer("y", Rows.TOKENS, 6), weight=weight)
    program = Program("one", (op,), outputs=(), inputs=(x,))
    tensors = {name: view(name, tensor) for name, tensor in zip("ab", values, strict=True)}
    loaded = load_weights(program, tensors, dtype=torch.float64)[weight]
    torch.testing.assert_close(loaded, torch.cat(values).double(), rtol=0, atol=0)


def test_missing_and_misshapen_weights(tiny: Tiny) -> None:
    program = tiny.program()
    name = program.weights[0].names[0]
    fewer = {key: value for key, value in tiny.tensors.items() if key != name}
    with pytest.raises(CheckpointError, match=f"no tensor {name}"):
        ReferenceExecutor(program, fewer)
    with pytest.raises(CheckpointError, match=r"has shape \[5, 40\] in the checkpoint"):
        ReferenceExecutor(program, {**tiny.tensors, name: view(name, torch.zeros(5, 40))})
