"""Same text, same bits, end to end: whatever the batch, the place, the number of threads; for every tier."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.texts import paragraphs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from longspan import Encoder, _csrc
from longspan.weights import Format

THREADS = (1, 2, 3)
CHUNK = 40

pytestmark = pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")


def same_bits(a: Any, b: Any) -> bool:
    return a.shape == b.shape and bool((a.view(np.uint32) == b.view(np.uint32)).all())


def texts_of_all_lengths() -> list[str]:
    words = " ".join(paragraphs(12)).split()
    lengths = (0, 1, 2, 5, 6, 11, 12, 13, 30, 47, 48, 60, 97, 150, 500)  # words; the last one needs windows
    return [" ".join(words[length : 2 * length]) for length in lengths]


TEXTS = texts_of_all_lengths()


class Tier:
    """The encoders of one tier and format, and the vectors of every text alone."""

    def __init__(self, folder: Path, isa: str, weights: Format) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LONGSPAN_ISA", isa)
            self.encoders = {threads: Encoder(folder, threads=threads, weights=weights) for threads in THREADS}
        self.alone = [self.encoders[1].encode(text) for text in TEXTS]
        self.chunks = [self.encoders[1].encode_chunks(text, chunk_tokens=CHUNK).vectors for text in TEXTS]


def arithmetics() -> list[tuple[str, Format]]:
    """Every tier, and the other formats on those that differ most: with few instructions for them, and with all."""
    tiers = _csrc.tiers()
    ends = dict.fromkeys((tiers[1:] or tiers)[i] for i in (0, -1))
    return [*((isa, "float32") for isa in tiers), *((isa, it) for isa in ends for it in ("bfloat16", "int8"))]


@pytest.fixture(scope="module", params=arithmetics(), ids=str)
def tier(request: pytest.FixtureRequest, minilm: Path) -> Tier:
    return Tier(minilm, *request.param)


def test_tier_is_the_one_asked_for(minilm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = {}
    for isa in _csrc.tiers():
        monkeypatch.setenv("LONGSPAN_ISA", isa)
        vectors[isa] = Encoder(minilm).encode(TEXTS[9])
    for one in vectors.values():
        np.testing.assert_allclose(one, vectors["generic"], atol=2e-6)
    monkeypatch.setenv("LONGSPAN_ISA", "v9")
    with pytest.raises(ValueError, match="v9"):
        Encoder(minilm)


few = settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@few
@given(
    places=st.lists(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=24),
    threads=st.sampled_from(THREADS),
)
def test_batches(tier: Tier, places: list[int], threads: int) -> None:
    vectors = tier.encoders[threads].encode([TEXTS[i] for i in places])
    for row, i in zip(vectors, places, strict=True):
        assert same_bits(row, tier.alone[i]), f"text {i} of {len(TEXTS[i].split())} words"


@few
@given(places=st.permutations(range(len(TEXTS))).map(lambda order: order[:6]), threads=st.sampled_from(THREADS))
def test_chunks(tier: Tier, places: list[int], threads: int) -> None:
    results = tier.encoders[threads].encode_chunks([TEXTS[i] for i in places], chunk_tokens=CHUNK)
    for result, i in zip(results, places, strict=True):
        assert same_bits(result.vectors, tier.chunks[i])
        assert same_bits(result.vector, tier.alone[i])


def test_long_segments(tier: Tier) -> None:
    """All threads share one segment, or each takes its own: the schedules differ."""
    text = TEXTS[-1]
    expected: list[Any] = []
    for encoder in tier.encoders.values():
        encoder.max_seq_length = 512
        try:
            vectors = [encoder.encode(text), encoder.encode([text, *TEXTS])[0], encoder.encode([*TEXTS, text] * 2)[-1]]
        finally:
            encoder.max_seq_length = 256
        expected = expected or vectors[:1]
        assert all(same_bits(vector, expected[0]) for vector in vectors)


@pytest.mark.slow
def test_more_texts_than_a_slice(minilm: Path) -> None:
    count = 4096 + 3
    encoder = Encoder(minilm, threads=2)
    vectors = encoder.encode([TEXTS[1]] * (count - 2) + [TEXTS[4], TEXTS[2]])
    assert vectors.shape == (count, 384)
    assert same_bits(vectors[: count - 2], np.broadcast_to(encoder.encode(TEXTS[1]), (count - 2, 384)).copy())
    assert same_bits(vectors[-2], encoder.encode(TEXTS[4]))
    assert same_bits(vectors[-1], encoder.encode(TEXTS[2]))


# --- not a number -----------------------------------------------------------------------------------------------------

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "poison", *"abcdefghijklmnopqrstuvwxyz"]


def tiny_checkpoint(folder: Path, poison: Mapping[str, float]) -> Path:
    """A tiny random BERT whose embeddings of some words are not finite."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        max_position_embeddings=128,
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    for word, value in poison.items():
        tensors["embeddings.word_embeddings.weight"][WORDS.index(word)] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("mode", ["mean", "max", "cls", "lasttoken", "weightedmean", "mean_sqrt_len_tokens"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_stays_in_its_text(tmp_path: Path, mode: str, value: float) -> None:
    folder = tiny_checkpoint(tmp_path / "model", {"poison": value})
    with_modules(folder, mode)
    good = ["", "a", "a b c d e", "q w e r t z " * 9, "x y z " * 50]
    encoders = [Encoder(folder, threads=threads) for threads in THREADS]
    alone = [encoders[0].encode(text) for text in good]
    assert np.isfinite(alone).all()
    mixed = [good[0], "poison", good[1], "a poison b", good[2], "poison " * 60, good[3], "a " * 30 + "poison", good[4]]
    for encoder in encoders:
        vectors = encoder.encode(mixed)
        assert np.isnan(vectors[1::2]).any(axis=1).all()
        for vector, expected in zip(vectors[::2], alone, strict=True):
            assert same_bits(vector, expected)
        chunks = encoder.encode_chunks(mixed, chunk_tokens=4)
        for document, text in zip(chunks[::2], good, strict=True):
            assert same_bits(document.vectors, encoder.encode_chunks(text, chunk_tokens=4).vectors)


def with_modules(folder: Path, mode: str) -> None:
    """Make a plain folder one of sentence-transformers, with a pooling and Normalize."""
    names = ("Transformer", "Pooling", "Normalize")
    paths = ("", "1_Pooling", "2_Normalize")
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (name, path) in enumerate(zip(names, paths, strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    pooling = {"embedding_dimension": 24, "pooling_mode": mode}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
