"""`Encoder` on the real all-MiniLM-L6-v2, judged by sentence-transformers."""

from __future__ import annotations

import pickle
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.texts import paragraphs
from sentence_transformers import SentenceTransformer

from longspan import Encoder, InputError, LongTextWarning, Usage

SENTENCES = ("The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium.")
LONG = "The cat sat on the mat, and the dog looked at it. " * 60  # 840 tokens
ODD = ("", " \n\t", "\0", "a\0b", "naïve café", "😀😀", "\u202eשלום\u2028עולם", "[CLS] [SEP] [MASK]", "x" * 3000)


@pytest.fixture(scope="module")
def encoder(minilm: Path) -> Encoder:
    return Encoder(minilm)


@pytest.fixture(scope="module")
def truncating(minilm: Path) -> Encoder:
    return Encoder(minilm, long_text="truncate")


@pytest.fixture(scope="module")
def peer(minilm: Path) -> Any:
    return SentenceTransformer(str(minilm), device="cpu")


def cosines(a: Any, b: Any) -> Any:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


def same_bits(a: Any, b: Any) -> bool:
    return a.shape == b.shape and bool((a.view(np.uint32) == b.view(np.uint32)).all())


# --- parity --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
def test_parity_with_sentence_transformers(truncating: Encoder, peer: Any) -> None:
    texts = paragraphs(480)
    texts += [" ".join(texts[i : i + 12]) for i in range(0, 240, 12)]  # some past the maximum, which both cut
    assert len(texts) == 500
    ours, usages = truncating.encode(texts, return_usage=True)
    assert {usage.n_used < usage.n_tokens for usage in usages} == {True, False}
    theirs = peer.encode(texts)
    assert ours.dtype == np.float32
    assert cosines(ours, theirs).min() >= 0.99999
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
def test_parity_of_odd_texts(truncating: Encoder, peer: Any) -> None:
    ours, theirs = truncating.encode(ODD), peer.encode(list(ODD))
    assert dict(zip(ODD, cosines(ours, theirs) >= 0.99999, strict=True)) == dict.fromkeys(ODD, True)


def test_known_values(encoder: Encoder) -> None:
    expected = [-0.034478, 0.03102, 0.00673, 0.02611, -0.039362]
    np.testing.assert_allclose(encoder.encode("hello world")[:5], expected, atol=2e-5)
    vectors = encoder.encode(SENTENCES)
    scores = encoder.similarity(vectors, vectors)
    np.testing.assert_allclose(scores[[0, 0, 1], [1, 2, 2]], [0.6660, 0.1046, 0.1411], atol=1e-4)
    np.testing.assert_allclose(encoder.similarity_pairwise(vectors[:2], vectors[1:]), [0.6660, 0.1411], atol=1e-4)


@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
def test_token_embeddings(truncating: Encoder, peer: Any) -> None:
    texts = [*SENTENCES, "", "a", LONG]
    ours = truncating.encode(texts, output_value="token_embeddings")
    theirs = peer.encode(texts, output_value="token_embeddings")
    assert [matrix.shape for matrix in ours] == [tuple(matrix.shape) for matrix in theirs]
    assert ours[3].shape == (2, 384)
    for mine, other in zip(ours, theirs, strict=True):
        assert cosines(mine, other.cpu().numpy()).min() >= 0.99999
    single = truncating.encode(texts[0], output_value="token_embeddings")
    assert same_bits(single, ours[0])
    assert truncating.encode([], output_value="token_embeddings") == []


def test_reference_backend_agrees(minilm: Path, encoder: Encoder) -> None:
    texts = [*SENTENCES, *ODD[:6]]
    reference = Encoder(minilm, backend="reference", device="cpu")
    np.testing.assert_allclose(reference.encode(texts), encoder.encode(texts), atol=2e-6)
    assert reference.encode([]).shape == (0, 384)


# --- what goes in and comes out -------------------------------------------------------------------------------------


def test_shapes(encoder: Encoder) -> None:
    assert encoder.encode("one").shape == (384,)
    assert encoder.encode(["one"]).shape == (1, 384)
    assert encoder.encode(("one", "two")).shape == (2, 384)
    array: Any = np.array(["one", "two", "three"])
    assert encoder.encode(array).shape == (3, 384)
    empty: Any
    for empty in ([], (), iter(())):
        vectors = encoder.encode(empty)
        assert (vectors.shape, vectors.dtype) == ((0, 384), np.float32)
    assert encoder.encode([], return_usage=True)[1] == []
    for text in ODD[:4]:
        np.testing.assert_allclose(np.linalg.norm(encoder.encode(text)), 1, atol=1e-6)
    assert same_bits(encoder.encode(""), encoder.encode(" \n\t"))  # the tokenizer sees nothing in either


def test_tensors(encoder: Encoder) -> None:
    vectors = encoder.encode(list(SENTENCES))
    tensor = encoder.encode(list(SENTENCES), convert_to_tensor=True)
    assert isinstance(tensor, torch.Tensor)
    assert tensor.dtype == torch.float32
    assert same_bits(tensor.numpy(), vectors)
    assert encoder.encode("one", convert_to_tensor=True).shape == (384,)
    assert encoder.encode([], convert_to_tensor=True).shape == (0, 384)
    several = encoder.encode(list(SENTENCES), convert_to_numpy=False)
    assert isinstance(several, list)
    assert [tuple(item.shape) for item in several] == [(384,)] * 3
    (matrix,) = encoder.encode(["one"], output_value="token_embeddings", convert_to_tensor=True)
    assert isinstance(matrix, torch.Tensor)


def test_truncate_dim(minilm: Path, encoder: Encoder, peer: Any) -> None:
    texts = list(SENTENCES)
    cut = encoder.encode(texts, truncate_dim=100)
    assert cut.shape == (3, 100)
    np.testing.assert_allclose(np.linalg.norm(cut, axis=1), 1, atol=1e-6)  # made unit length again
    assert cosines(cut, peer.encode(texts, truncate_dim=100)).min() >= 0.99999
    other = Encoder(minilm, truncate_dim=100)
    assert other.get_embedding_dimension() == other.get_sentence_embedding_dimension() == 100
    assert same_bits(other.encode(texts), cut)
    assert encoder.get_embedding_dimension() == 384
    assert same_bits(encoder.encode(texts, truncate_dim=384), encoder.encode(texts))


def test_accessors(encoder: Encoder) -> None:
    assert encoder.device == "cpu"
    assert encoder.similarity_fn_name == "cosine"
    assert encoder.tokenizer.encode("hello world").tokens == ["[CLS]", "hello", "world", "[SEP]"]
    assert encoder.prompts == {"query": "", "document": ""}
    assert re.fullmatch(r"Encoder\('.*', dimension=384, max_seq_length=256, device='cpu'\)", repr(encoder))


def test_normalize_embeddings_changes_nothing_of_unit_vectors(encoder: Encoder) -> None:
    assert same_bits(encoder.encode("one", normalize_embeddings=True), encoder.encode("one"))


# --- prompts --------------------------------------------------------------------------------------------------------


def test_prompts(minilm: Path, encoder: Encoder) -> None:
    texts = ["when are defaults evaluated?", "", "naïve 😀"]
    prompts = {"query": "Ask: ", "passage": "Text: ", "other": "Zzz ", "empty": ""}
    prompted = Encoder(minilm, prompts=prompts, default_prompt_name="other")
    assert prompted.prompts == {"query": "Ask: ", "document": "", **{k: prompts[k] for k in prompts if k != "query"}}
    plain = {prompt: encoder.encode([prompt + text for text in texts]) for prompt in [*prompts.values(), "New: "]}
    assert same_bits(prompted.encode(texts), plain["Zzz "])
    assert same_bits(prompted.encode(texts, "query"), plain["Ask: "])
    assert same_bits(prompted.encode(texts, prompt_name="passage"), plain["Text: "])
    assert same_bits(prompted.encode(texts, prompt_name="empty"), plain[""])
    assert same_bits(prompted.encode(texts, prompt=""), plain[""])
    assert same_bits(prompted.encode(texts, prompt="New: "), plain["New: "])
    assert same_bits(prompted.encode(texts, "query", prompt="New: "), plain["New: "])  # as in sentence-transformers
    assert same_bits(prompted.encode_query(texts), plain["Ask: "])
    assert same_bits(prompted.encode_document(texts), plain["Text: "])  # "document" is empty
    assert same_bits(prompted.encode_query(texts, "other"), plain["Zzz "])
    assert same_bits(prompted.encode_document(texts, prompt="New: "), plain["New: "])
    assert same_bits(prompted.encode_document("naïve 😀", truncate_dim=None), plain["Text: "][2])


def test_default_prompt_is_for_encode_alone(minilm: Path) -> None:
    """As in sentence-transformers: an empty "query" or "document" keeps the default prompt out."""
    options: dict[str, Any] = {"prompts": {"title": "t: "}, "default_prompt_name": "title"}
    ours, theirs = Encoder(minilm, **options), SentenceTransformer(str(minilm), device="cpu", **options)
    for method in ("encode", "encode_query", "encode_document"):
        mine, other = (getattr(encoder, method)(list(SENTENCES)) for encoder in (ours, theirs))
        assert cosines(mine, other).min() >= 0.99999, method


# --- long texts -----------------------------------------------------------------------------------------------------


def test_usage(encoder: Encoder, truncating: Encoder) -> None:
    with pytest.warns(LongTextWarning, match="1 of 3 texts"):
        vectors, usages = encoder.encode(["two words", "", LONG], prompt="A prompt of six: ", return_usage=True)
    with pytest.warns(LongTextWarning, match="were cut"):
        _, cut = truncating.encode(LONG, return_usage=True)
    assert usages[:2] == [Usage(2, 2, 1), Usage(0, 0, 1)]
    count = len(encoder.tokenizer.encode(LONG, add_special_tokens=False).ids)
    assert usages[2].n_tokens == usages[2].n_used == count
    assert usages[2].n_windows == 5
    assert vectors.shape == (3, 384)
    assert cut == Usage(count, 254, 1)


@pytest.mark.parametrize("method", ["encode", "encode_query", "encode_document"])
@pytest.mark.parametrize(("long_text", "done"), [("window", "overlapping windows"), ("truncate", "cut")])
def test_one_warning_at_the_callers_line(minilm: Path, method: str, long_text: str, done: str) -> None:
    encode = getattr(Encoder(minilm, long_text=long_text), method)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        encode([LONG, "short", LONG + " more"])
    (warning,) = caught
    assert isinstance(warning.message, LongTextWarning)
    assert warning.message.texts == pickle.loads(pickle.dumps(warning.message)).texts == 2
    longest = " .*longest has 841" if long_text == "window" else ""  # what is cut off is not even counted
    assert re.search(rf"2 of 3 texts .* 256 tokens{longest}.*{done}", str(warning.message))
    assert warning.filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode("short")


def test_long_text_policies(minilm: Path, encoder: Encoder, truncating: Encoder) -> None:
    ids = encoder.tokenizer.encode(LONG, add_special_tokens=False).offsets
    first = LONG[: ids[253][1]]
    with pytest.warns(LongTextWarning):
        assert same_bits(truncating.encode(LONG), encoder.encode(first))
    with pytest.warns(LongTextWarning):
        windowed = encoder.encode(LONG)
    assert not same_bits(windowed, encoder.encode(first))
    np.testing.assert_allclose(np.linalg.norm(windowed), 1, atol=1e-6)
    strict = Encoder(minilm, long_text="error")
    with pytest.raises(InputError, match=rf"inputs\[1\] has {len(ids)} tokens, but only 254 fit"):
        strict.encode(["short", LONG])
    assert same_bits(strict.encode(first), encoder.encode(first))


def test_max_seq_length(minilm: Path, encoder: Encoder) -> None:
    assert encoder.max_seq_length == 256
    other = Encoder(minilm, long_text="truncate", max_seq_length=5)
    assert other.max_seq_length == 5
    with pytest.warns(LongTextWarning, match="5 tokens"):
        assert same_bits(other.encode("one two three four five"), encoder.encode("one two three"))
    other.max_seq_length = 512
    with pytest.warns(LongTextWarning, match="512 tokens"):
        assert other.encode(LONG, return_usage=True)[1].n_used == 510
    for wrong in (0, -1, 513, 2, 7.0, "9", None, True):
        with pytest.raises(InputError, match="max_seq_length"):
            other.max_seq_length = wrong  # type: ignore[assignment]
        assert other.max_seq_length == 512


# --- threads --------------------------------------------------------------------------------------------------------


def test_callers_in_several_threads(encoder: Encoder) -> None:
    texts = paragraphs(60)
    groups = [texts[:20], texts[20:45], texts[45:], list(SENTENCES)]
    serial = [encoder.encode(group) for group in groups]
    for _ in range(3):
        with ThreadPoolExecutor(4) as callers:
            assert all(map(same_bits, callers.map(encoder.encode, groups), serial))


def test_one_thread(minilm: Path, encoder: Encoder) -> None:
    texts = paragraphs(10)
    assert same_bits(Encoder(minilm, threads=1).encode(texts), encoder.encode(texts))
