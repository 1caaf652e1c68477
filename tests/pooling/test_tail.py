"""Poolings and tails end to end: tiny models that sentence-transformers saves, beside itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling
from transformers import BertConfig, BertModel, BertTokenizerFast

from longspan import CheckpointError, Encoder
from longspan.checkpoint.recipe import PoolingMode
from longspan.pooling.precision import Precision
from longspan.pooling.tail import build_tail, ends_in_normalize, tail_width

WIDTH = 24
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ":", "ask", "##s", *"abcdefghijklmnopqrstuvwxyz"]
TEXTS = ["a b c", "", "q", "x y z ask asks " * 9, "u v w " * 40, "unknown words 123", "t h e q u i c k"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random BERT as transformers saves it."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Models are so tiny here that torch's threads cost more than they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Pair:
    """A model of sentence-transformers, saved, and ours made from its folder."""

    def __init__(
        self,
        plain: Path,
        folder: Path,
        modes: PoolingMode | Sequence[PoolingMode],
        tail: Sequence[Any] = (),
        *,
        include_prompt: bool = True,
        **options: Any,
    ) -> None:
        torch.manual_seed(1)
        pooling = Pooling(WIDTH, modes, include_prompt=include_prompt)
        self.folder = folder
        self.peer = SentenceTransformer(modules=[Transformer(str(plain)), pooling, *tail], device="cpu", **options)
        self.peer.eval()
        self.peer.save(str(folder))
        self.ours = Encoder(folder, long_text="truncate")

    def check(self, texts: Sequence[str] = TEXTS, *, method: str = "encode", **options: Any) -> None:
        ours = getattr(self.ours, method)(texts, **options)
        theirs = getattr(self.peer, method)(list(texts), **options)
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=2e-6 * max(1.0, float(np.abs(theirs).max())))


pytestmark = pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")


@pytest.mark.parametrize("mode", get_args(PoolingMode))
def test_poolings(plain: Path, tmp_path: Path, mode: PoolingMode) -> None:
    pair = Pair(plain, tmp_path / "model", mode)
    pair.check()
    pair.check(prompt="ask: ")
    pair.check(normalize_embeddings=True)


@pytest.mark.parametrize("prompt", ["ask: ", "ask:", "ask a ", ""])
@pytest.mark.parametrize("mode", get_args(PoolingMode))
def test_prompts_left_out_of_the_pooling(plain: Path, tmp_path: Path, mode: PoolingMode, prompt: str) -> None:
    pair = Pair(plain, tmp_path / "model", mode, include_prompt=False, prompts={"query": prompt})
    pair.check(prompt_name="query")
    pair.check(prompt=prompt)
    pair.check()
    pair.check(method="encode_query")
    pair.check(method="encode_document")


def test_concatenated_poolings(plain: Path, tmp_path: Path) -> None:
    modes: list[PoolingMode] = ["max", "cls", "mean_sqrt_len_tokens", "lasttoken", "mean", "weightedmean"]
    pair = Pair(plain, tmp_path / "model", modes, [Normalize()])
    assert pair.ours.get_embedding_dimension() == 6 * WIDTH
    pair.check()
    token = pair.ours.encode("a b c", output_value="token_embeddings")
    np.testing.assert_allclose(token, pair.peer.encode("a b c", output_value="token_embeddings"), atol=2e-6)


@pytest.mark.parametrize("activation", ["Tanh", "GELU", "ReLU", "SiLU", "Identity"])
@pytest.mark.parametrize("residual", [False, True])
def test_dense(plain: Path, tmp_path: Path, activation: str, residual: bool) -> None:
    function = getattr(torch.nn, activation)()
    tail = [
        Dense(2 * WIDTH, 13, activation_function=function, use_residual=residual),
        Dense(13, 13, bias=False, activation_function=function, use_residual=residual),
    ]
    pair = Pair(plain, tmp_path / "model", ["mean", "max"], tail)
    assert pair.ours.get_embedding_dimension() == 13
    pair.check()
    pair.check(truncate_dim=5)


def trained_norm(width: int) -> Any:
    norm = LayerNorm(width)
    torch.nn.init.normal_(norm.norm.weight)
    torch.nn.init.normal_(norm.norm.bias)
    return norm


TAILS: dict[str, list[Any]] = {
    "layer norm": [trained_norm(WIDTH)],
    "layer norm, normalize": [trained_norm(WIDTH), Normalize()],
    "normalize, dense": [Normalize(), Dense(WIDTH, 40)],
    "dense, normalize, layer norm, dense": [Dense(WIDTH, 9), Normalize(), trained_norm(9), Dense(9, 65)],
    "normalize twice": [Normalize(), Normalize()],
}


@pytest.mark.parametrize("name", TAILS)
def test_tails(plain: Path, tmp_path: Path, name: str) -> None:
    pair = Pair(plain, tmp_path / "model", "mean", TAILS[name])
    pair.check()
    pair.check(normalize_embeddings=True)


def test_cut(plain: Path, tmp_path: Path) -> None:
    """Like sentence-transformers where the vectors are not unit length, and unit length again where they are."""
    pair = Pair(plain, tmp_path / "raw", "mean", truncate_dim=7)
    assert pair.ours.get_embedding_dimension() == 7
    pair.check()
    pair.check(truncate_dim=10)
    other = Pair(plain, tmp_path / "unit", "mean", [Normalize()])
    ours, theirs = other.ours.encode(TEXTS, truncate_dim=7), other.peer.encode(TEXTS, truncate_dim=7)
    np.testing.assert_allclose(ours, theirs / np.linalg.norm(theirs, axis=1, keepdims=True), atol=1e-6)


def test_settings_of_the_checkpoint(plain: Path, tmp_path: Path) -> None:
    prompts = {"query": "ask: ", "document": "", "title": "t "}
    pair = Pair(plain, tmp_path / "model", "mean", prompts=prompts, default_prompt_name="title")
    pair.peer.similarity_fn_name = "euclidean"
    pair.peer.max_seq_length = 20
    pair.peer.save(str(tmp_path / "again"))
    pair.ours = Encoder(tmp_path / "again", long_text="truncate")
    assert pair.ours.max_seq_length == 20
    assert pair.ours.similarity_fn_name == "euclidean"
    assert pair.ours.prompts == prompts
    pair.check()
    pair.check(prompt_name="query")
    vectors = pair.peer.encode(TEXTS)
    np.testing.assert_allclose(
        pair.ours.similarity(vectors, vectors[:2]), pair.peer.similarity(vectors, vectors[:2]), atol=1e-5
    )


def test_chunks_pass_through_the_tail(plain: Path, tmp_path: Path) -> None:
    pair = Pair(plain, tmp_path / "model", "mean", [Dense(WIDTH, 9), trained_norm(9)])
    document = "a b c. " * 40
    result = pair.ours.encode_chunks(document, chunk_tokens=10)
    assert len(result.windows) > 1
    tokens = pair.ours.encode("a b c. " * 8, output_value="token_embeddings")[1:-1]
    (chunk,) = pair.ours.encode_chunks("a b c. " * 8, spans=[(0, 7)]).vectors
    with torch.inference_mode():
        features = {"sentence_embedding": torch.from_numpy(tokens[:4].mean(0, keepdims=True))}
        expected = pair.peer[3](pair.peer[2](features))["sentence_embedding"][0].numpy()
    np.testing.assert_allclose(chunk, expected, atol=5e-6)
    assert result.vectors.shape == (len(result), 9)


def test_widths() -> None:
    assert tail_width(["mean"], 24, []) == 24
    assert tail_width(["mean", "cls", "max"], 24, []) == 72
    assert not ends_in_normalize([])
    program = build_tail(["mean", "cls"], 24, [], dimension=30, unit=True)
    assert [buffer.width for buffer in program.inputs] == [24, 24]
    assert [buffer.width for buffer in program.outputs] == [30]


def test_damaged_modules_are_noticed_when_loading(plain: Path, tmp_path: Path) -> None:
    folder = Pair(plain, tmp_path / "model", "mean", [Dense(WIDTH, 9)]).folder
    weights = folder / "2_Dense" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match=r"2_Dense/model\.safetensors is truncated"):
        Encoder(folder)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"2_Dense/model\.safetensors does not exist"):
        Encoder(folder)
    config = folder / "2_Dense" / "config.json"
    weights.write_bytes(whole)
    config.write_text(config.read_text().replace('"out_features": 9', '"out_features": 8'))
    with pytest.raises(CheckpointError, match=r"tensor '.*linear\.weight' has the shape \[9, 24\], but \[8, 24\]"):
        Encoder(folder)


def test_pplx_embeds_own_quantizer(plain: Path, tmp_path: Path) -> None:
    """As `modules.json` of pplx-embed-v1 has it; its code rounds 127 tanh(x), which is not run but known."""
    pair = Pair(plain, tmp_path / "model", "mean")
    path = pair.folder / "modules.json"
    quantizer = {"idx": 2, "name": "2", "path": "", "type": "st_quantize.FlexibleQuantizer", "kwargs": ["quantization"]}
    path.write_text(json.dumps([*json.loads(path.read_text()), quantizer]))
    (pair.folder / "st_quantize.py").write_text("raise SystemExit('this code must not run')\n")
    encoder = Encoder(pair.folder, long_text="truncate")
    exact = 127 * np.tanh(pair.peer.encode(TEXTS).astype(np.float64))
    ours, sure = encoder.encode(TEXTS), np.abs(exact % 1 - 0.5) > 1e-3
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours[sure], np.round(exact)[sure])
    np.testing.assert_array_equal(encoder.encode(TEXTS, truncate_dim=9), ours[:, :9])
    unit = encoder.encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(unit, ours / np.linalg.norm(ours, axis=1, keepdims=True), atol=1e-6)
    offsets: dict[Precision, int] = {"int8": 0, "uint8": 128}
    for precision, offset in offsets.items():
        for dimension in (9, None):
            codes = encoder.encode(TEXTS, precision=precision, truncate_dim=dimension)
            assert codes.dtype == precision
            np.testing.assert_array_equal(codes.astype(np.float32), ours[:, :dimension] + offset)
    encoder.save(tmp_path / "saved")
    assert (tmp_path / "saved" / "st_quantize.py").exists()
    assert Encoder(tmp_path / "saved", long_text="truncate").encode(TEXTS).tobytes() == ours.tobytes()
