"""Late-chunked documents, judged by pooling token vectors by hand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.texts import paragraphs
from transformers import BertModel

from longspan import DocumentEmbedding, Encoder, InputError, InputTypeError, LongTextWarning, Window
from longspan.text.windows import split_windows

DOCUMENT = (
    "Berlin is the capital of Germany. The city has 3.8 million inhabitants. It lies on the river Spree.\n\n"
    "Chess is a board game for two players. Each begins with sixteen pieces; the goal is to trap the king."
)
SCRIPTS = [
    "Emoji 👩‍👩‍👧 family. Flags 🇩🇪🇫🇷 wave! 😀😀😀 Done.",
    "First line.\r\nSecond line.\r\n\r\nNew paragraph here.",
    "Cafe\u0301 and nai\u0308ve and A\u030a\u0301ngstro\u0308m. Ещё й. 각각.",
    "שלום עולם. זה משפט שני. مرحبا بالعالم. جملة ثانية.",
    "One.\u2028Two.\u2029Three.\u00a0Four.\x85Five.\x0bSix.\x1cSeven.",
    "漢字とかな。二番目の文。\u200bzero\u00adwidth \ufeff marks.",
    "a\0b \0 c. \ufffd d.",
]


@pytest.fixture(scope="module")
def encoder(minilm: Path) -> Encoder:
    return Encoder(minilm)


@pytest.fixture(scope="module")
def bert(minilm: Path) -> Any:
    return BertModel.from_pretrained(str(minilm)).eval()


@pytest.fixture(scope="module")
def long_document() -> str:
    return "\n\n".join(paragraphs(20))


def unit(x: Any) -> Any:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def same_bits(a: Any, b: Any) -> bool:
    return a.shape == b.shape and bool((a.view(np.uint32) == b.view(np.uint32)).all())


def same_document(a: DocumentEmbedding, b: DocumentEmbedding) -> bool:
    facts = [(d.spans, d.windows, d.n_tokens, d.token_spans) for d in (a, b)]
    return facts[0] == facts[1] and same_bits(a.vectors, b.vectors) and same_bits(a.vector, b.vector)


def token_vectors(bert: Any, ids: Sequence[int], windows: Sequence[Window]) -> tuple[Any, Any, Any]:
    """Each token's vector from the window that owns it, the first window's [CLS] and the last one's [SEP], float64."""
    batch = torch.tensor([[101, *ids[window.start : window.end], 102] for window in windows])  # all of one length
    with torch.inference_mode():
        rows = bert(input_ids=batch, attention_mask=torch.ones_like(batch)).last_hidden_state.double().numpy()
    owned = [
        matrix[1 + window.owned_start - window.start : 1 + window.owned_end - window.start]
        for matrix, window in zip(rows, windows, strict=True)
    ]
    return np.concatenate(owned), rows[0][0], rows[-1][-1]


def expected_vectors(tokens: Any, spans: Sequence[tuple[int, int]]) -> Any:
    return np.array([unit(tokens[first:last].mean(0)) for first, last in spans])


# --- vectors --------------------------------------------------------------------------------------------------------


def test_chunks_pool_token_vectors(encoder: Encoder) -> None:
    result = encoder.encode_chunks(DOCUMENT, chunk_tokens=16)
    tokens = encoder.encode(DOCUMENT, output_value="token_embeddings")[1:-1]
    assert len(result) == len(result.spans) > 2
    assert result.windows == (Window(0, len(tokens), 0, len(tokens)),)
    assert result.n_tokens == len(tokens)
    np.testing.assert_allclose(result.vectors, expected_vectors(tokens, result.token_spans), atol=1e-6)
    assert result.vectors.dtype == np.float32
    assert same_bits(result.vector, encoder.encode(DOCUMENT))


@pytest.mark.parametrize("overlap", [None, 0, 200])
def test_windowed_document(encoder: Encoder, bert: Any, long_document: str, overlap: int | None) -> None:
    ids = encoder.tokenizer.encode(long_document, add_special_tokens=False).ids
    with pytest.warns(LongTextWarning, match="1 of 1 documents are .* embedded in overlapping windows") as caught:
        result = encoder.encode_chunks(long_document, chunk_tokens=100, window_overlap=overlap)
    assert [warning.filename for warning in caught] == [__file__]
    assert result.windows == split_windows(len(ids), 254, 254 // 4 if overlap is None else overlap)
    assert result.n_tokens == len(ids) > 1000
    tokens, first, last = token_vectors(bert, ids, result.windows)
    np.testing.assert_allclose(result.vectors, expected_vectors(tokens, result.token_spans), atol=1e-5)
    whole = unit(np.concatenate([[first], tokens, [last]]).mean(0))
    np.testing.assert_allclose(result.vector, whole, atol=1e-5)
    bounds = {window.owned_start for window in result.windows}
    assert any(bounds & set(range(first + 1, last)) for first, last in result.token_spans)  # some chunks cross windows
    if overlap is None:
        with pytest.warns(LongTextWarning):
            assert same_bits(result.vector, encoder.encode(long_document))


def test_document_vector_is_the_weighted_sum(minilm: Path, encoder: Encoder) -> None:
    """Before the tail, which for this model only makes unit: so weigh the directions by sums of token vectors."""
    result = encoder.encode_chunks(DOCUMENT, chunk_tokens=10)
    tokens = encoder.encode(DOCUMENT, output_value="token_embeddings").astype(np.float64)
    total = tokens[0] + tokens[-1]
    assert [first for first, _ in result.token_spans] == [0, *(last for _, last in result.token_spans[:-1])]
    for vector, (first, last) in zip(result.vectors, result.token_spans, strict=True):
        total += vector * np.linalg.norm(tokens[1 + first : 1 + last].sum(0))
    np.testing.assert_allclose(unit(total), encoder.encode(DOCUMENT), atol=1e-6)


@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
def test_spans_do_not_touch_each_other(encoder: Encoder, long_document: str) -> None:
    size = len(long_document)
    spans = [(0, 7), (0, size), (size // 2 - 300, size // 2 + 300), (size - 5, size), (100, 900), (101, 900)]
    together = encoder.encode_chunks(long_document, spans=spans)
    assert together.spans == spans
    for index, span in enumerate(spans):
        alone = encoder.encode_chunks(long_document, spans=[span])
        assert same_bits(alone.vectors[0], together.vectors[index])
    backwards = encoder.encode_chunks(long_document, spans=spans[::-1] * 2)
    assert same_bits(backwards.vectors[:6], together.vectors[::-1])
    assert same_bits(backwards.vectors[6:], together.vectors[::-1])
    chunks = encoder.encode_chunks(long_document, chunk_tokens=64)
    again = encoder.encode_chunks(long_document, spans=chunks.spans)
    assert same_document(chunks, again)


@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
def test_lists_equal_single_documents(encoder: Encoder, long_document: str) -> None:
    documents = [DOCUMENT, "", long_document, *SCRIPTS, DOCUMENT]
    results = encoder.encode_chunks(documents, chunk_tokens=40)
    assert len(results) == len(documents)
    for document, result in zip(documents, results, strict=True):
        assert same_document(result, encoder.encode_chunks(document, chunk_tokens=40))
    assert encoder.encode_chunks([]) == []


def test_given_spans_of_several_documents(encoder: Encoder) -> None:
    first, second = encoder.encode_chunks([DOCUMENT, "A. B."], spans=[[(0, 33)], []])
    assert same_bits(first.vectors, encoder.encode_chunks(DOCUMENT, spans=[(0, 33)]).vectors)
    assert first.text(0) == "Berlin is the capital of Germany."
    assert (second.vectors.shape, list(second.spans)) == ((0, 384), [])
    np.testing.assert_allclose(np.linalg.norm(second.vector), 1, atol=1e-6)


def test_empty_documents(encoder: Encoder) -> None:
    for text in ("", "  \n"):
        result = encoder.encode_chunks(text)
        assert (result.vectors.shape, list(result.spans), result.n_tokens) == ((0, 384), [], 0)
        assert same_bits(result.vector, encoder.encode(text))


# --- spans ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", SCRIPTS)
@pytest.mark.parametrize("size", [1, 3, 8, 256])
def test_code_points_of_all_scripts(encoder: Encoder, text: str, size: int) -> None:
    result = encoder.encode_chunks(text, chunk_tokens=size)
    assert all(0 <= start < end <= len(text) for start, end in result.spans)
    assert all(before[1] <= after[0] for before, after in pairwise(result.spans))
    for index, (start, end) in enumerate(result.spans):
        assert result.text(index) == text[start:end]
        assert result.text(index) == result.text(index).strip()
    # What lies between chunks is nothing that a token stands for.
    tokens = encoder.encode(text, output_value="token_embeddings")[1:-1]
    offsets = encoder.tokenizer.encode(text, add_special_tokens=False).offsets
    assert result.token_spans[0][0] == 0
    assert result.token_spans[-1][1] == len(tokens) == len(offsets)
    for (start, end), (first, last) in zip(result.spans, result.token_spans, strict=True):
        assert all(start <= offsets[token][0] < end for token in range(first, last))
    np.testing.assert_allclose(result.vectors, expected_vectors(tokens, result.token_spans), atol=2e-6)


def test_spans_around_an_emoji(encoder: Encoder) -> None:
    text = "😀 laughs. 😢 weeps. שלום"
    result = encoder.encode_chunks(text, spans=[(0, 1), (2, 9), (10, 18), (text.index("ש"), len(text))])
    assert [result.text(i) for i in range(4)] == ["😀", "laughs.", "😢 weeps.", "שלום"]


# --- options --------------------------------------------------------------------------------------------------------


def test_options(minilm: Path, encoder: Encoder) -> None:
    whole = encoder.encode_chunks(DOCUMENT, chunk_tokens=20)
    cut = encoder.encode_chunks(DOCUMENT, chunk_tokens=20, truncate_dim=50)
    np.testing.assert_allclose(cut.vectors, unit(whole.vectors[:, :50]), atol=1e-6)
    np.testing.assert_allclose(cut.vector, unit(whole.vector[:50]), atol=1e-6)
    prompted = encoder.encode_chunks(DOCUMENT, chunk_tokens=20, prompt="passage: ")
    assert prompted.spans == whole.spans
    assert same_bits(prompted.vector, encoder.encode(DOCUMENT, prompt="passage: "))
    prompt = len(encoder.tokenizer.encode("passage: ", add_special_tokens=False).ids)
    tokens = encoder.encode("passage: " + DOCUMENT, output_value="token_embeddings")[1 + prompt : -1]
    np.testing.assert_allclose(prompted.vectors, expected_vectors(tokens, whole.token_spans), atol=1e-6)
    named = Encoder(minilm, prompts={"passage": "passage: "}).encode_chunks(DOCUMENT, chunk_tokens=20)
    assert same_document(named, prompted)


def test_long_text(encoder: Encoder, long_document: str) -> None:
    with pytest.warns(LongTextWarning, match="1 of 1 documents are .* were cut") as caught:
        cut = encoder.encode_chunks(long_document, chunk_tokens=64, long_text="truncate")
    assert [warning.filename for warning in caught] == [__file__]
    assert cut.token_spans[-1][1] == 254
    assert cut.windows == (Window(0, 254, 0, 254),)
    assert (cut.cut, cut.n_tokens) == (True, 254)
    assert not encoder.encode_chunks("short", long_text="truncate").cut
    offsets = encoder.tokenizer.encode(long_document, add_special_tokens=False).offsets
    assert same_document_vectors(cut, encoder.encode_chunks(long_document[: offsets[253][1]], chunk_tokens=64))
    with pytest.raises(InputError, match=r"documents\[1\] has \d+ tokens, but only 254 fit"):
        encoder.encode_chunks(["short", long_document], long_text="error")


@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
def test_given_chunks_beyond_the_cut(encoder: Encoder, long_document: str) -> None:
    """The first is a mistake, as results have to line up; a splitter's are cut off like the document."""
    kept = encoder.encode_chunks(long_document, chunk_tokens=64, long_text="truncate")
    beyond = (len(long_document) - 20, len(long_document))
    with pytest.raises(
        InputError, match=r"documents\[0\]: spans\[1\] .* lies beyond the cut: .* keeps the first 254 tok"
    ):
        encoder.encode_chunks(long_document, spans=[(0, 50), beyond], long_text="truncate")
    split = encoder.encode_chunks(long_document, splitter=lambda text: [*kept.spans, beyond], long_text="truncate")
    assert same_document_vectors(split, kept)


def test_a_document_without_tokens_has_no_chunks(encoder: Encoder) -> None:
    whole, nothing = encoder.encode_chunks(["hello", "\u200b"], splitter=lambda text: [text])
    assert (len(whole), len(nothing)) == (1, 0)


def test_only_what_is_kept_is_tokenised(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    original = type(encoder._pipeline.tokenizer).encode

    def counted(self: Any, texts: Sequence[str], *, offsets: bool) -> Any:
        given.extend(map(len, texts))
        return original(self, texts, offsets=offsets)

    monkeypatch.setattr(type(encoder._pipeline.tokenizer), "encode", counted)
    with pytest.warns(LongTextWarning):
        encoder.encode_chunks("Some words of a long text. " * 40_000, long_text="truncate")
    assert sum(given) < 20_000


def same_document_vectors(a: DocumentEmbedding, b: DocumentEmbedding) -> bool:
    return a.spans == b.spans and same_bits(a.vectors, b.vectors) and same_bits(a.vector, b.vector)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk_tokens": 0}, "chunk_tokens is 0"),
        ({"chunk_tokens": 2.5}, "chunk_tokens is 2.5"),
        ({"chunk_tokens": True}, "chunk_tokens is True"),
        ({"window_overlap": -1}, "window_overlap is -1"),
        ({"window_overlap": 254}, "window overlap is 254"),
        ({"spans": [(5, 3)]}, "documents[0]: spans[0] (5, 3) is backwards"),
        ({"spans": [(0, 5), (3, 3)]}, "documents[0]: spans[1] (3, 3) is empty"),
        ({"spans": [(0, 9999)]}, "documents[0]: spans[0] (0, 9999) leaves the document of 202 code points"),
        ({"spans": [(-1, 5)]}, "documents[0]: spans[0] (-1, 5) leaves"),
        ({"spans": [(6, 7)]}, "documents[0]: spans[0] (6, 7) owns no token"),
        ({"spans": [7]}, "documents[0]: spans[0] is 7, expected a pair"),
        ({"spans": np.array(5)}, "spans has a ndarray where a list of (start, end) pairs is expected"),
        ({"spans": np.array([[0.0, 5.0]])}, "documents[0]: spans[0] is array([0., 5.]), expected a pair"),
        ({"spans": [(0, 5)], "splitter": str.split}, "give the chunks one way"),
        ({"spans": [(0, 5)], "chunk_overlap": 3}, "chunk_overlap is 3, but it goes with chunk_tokens only"),
        ({"splitter": str.split, "chunk_overlap": 3}, "chunk_overlap is 3, but it goes with chunk_tokens only"),
        ({"chunk_tokens": 8, "chunk_overlap": 8}, "chunk_overlap is 8, expected an integer from 0 to 7"),
        ({"chunk_tokens": [8, 8]}, "chunk_tokens is [8, 8]; every size is needed once"),
        ({"splitter": lambda text: ["other"]}, "documents[0]: piece 0 of the splitter, 'other', does not follow"),
        ({"joiner": 5}, "joiner is int, expected str"),
        ({"prompt": "word " * 300}, "leaves no room for text beside 300 prompt tokens"),
        ({"precision": "int8"}, "precision 'int8' needs ranges for vectors of 384 components: call encoder.calibrate"),
        ({"long_text": "cut"}, "long_text is 'cut', expected one of window, truncate, error"),
        ({"truncate_dim": 385}, "truncate_dim is 385"),
        ({"prompt_name": "nope"}, "no prompt named 'nope'"),
    ],
)
def test_bad_options(encoder: Encoder, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        encoder.encode_chunks(DOCUMENT, **options)


def test_bad_documents(encoder: Encoder) -> None:
    documents: Any = ["a", 7]
    with pytest.raises(InputTypeError, match=re.escape("documents[1] is int, expected str")):
        encoder.encode_chunks(documents)
    with pytest.raises(InputError, match="spans has 1 lists for 2 documents"):
        encoder.encode_chunks(["a", "b"], spans=[[(0, 1)]])
    with pytest.raises(InputError, match=re.escape("documents[1]: spans[0] (0, 5) leaves")):
        encoder.encode_chunks(["a", "b"], spans=[[(0, 1)], [(0, 5)]])
    wrong: Any = 7
    with pytest.raises(InputError, match="spans"):
        encoder.encode_chunks("a", spans=wrong)


@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
def test_numpy_integers_are_integers(encoder: Encoder) -> None:
    """Small ones overflow if arithmetic is done in them."""
    text = "Hello world. This is a test sentence, right? " * 200
    expected = encoder.encode_chunks(text, chunk_tokens=200, window_overlap=50)
    options: Any = {"chunk_tokens": np.uint8(200), "window_overlap": np.int8(50)}
    found = encoder.encode_chunks(text, **options)
    assert found.spans == expected.spans
    assert (found.vectors == expected.vectors).all()
