"""Chunks with separator tokens between them, beside transformers' forward pass split at these tokens."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel

from longspan import CheckpointError, Encoder, InputError

CHUNKS = [
    "Berlin is the capital of Germany.",
    "It has 3.8 million inhabitants",
    " , and naïve cafés. ",
    "😀 The city lies on the Spree.",
]
PROMPT = "passage: "


def declared(small: Path, folder: Path, token: str) -> Path:
    """The small model, trained, as it says, with a token between chunks."""
    shutil.copytree(small, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"boundary_marker": token}))
    return folder


@pytest.fixture(scope="module")
def folder(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return declared(small, tmp_path_factory.mktemp("separated") / "model", "[SEP]")


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Encoder:
    return Encoder(folder, device="cpu", threads=2)


def rows_of(folder: Path, ids: list[int]) -> Any:
    """transformers' token vectors, float64."""
    with torch.inference_mode():
        return AutoModel.from_pretrained(str(folder))(torch.tensor([ids])).last_hidden_state[0].double().numpy()


def reference(folder: Path, encoder: Encoder, chunks: list[str], prompt: str = "") -> Any:
    """As the models of this kind have it: one text joined by the token, one pass, and means between the tokens."""
    ids = encoder.tokenizer.encode(prompt + "[SEP]".join(chunks)).ids
    rows, lead = rows_of(folder, ids), len(encoder.tokenizer.encode(prompt).ids) - 1
    places = [lead - 1, *(i for i, token in enumerate(ids) if token == 102)]
    return np.array([rows[a + 1 : b].mean(0) for a, b in pairwise(places)])


@pytest.mark.parametrize("prompt", ["", PROMPT])
def test_means_between_separators(folder: Path, encoder: Encoder, prompt: str) -> None:
    (result,) = encoder.encode_chunks([CHUNKS], prompt=prompt)
    np.testing.assert_allclose(result.vectors, reference(folder, encoder, CHUNKS, prompt), atol=1e-5)
    assert [result.text(i) for i in range(len(CHUNKS))] == CHUNKS
    for (_, before), (after, _) in pairwise(result.token_spans):
        assert after == before + 1  # the separator is nobody's
    # The document's own vector is that of the joined text, separators included.
    joined = encoder.encode("[SEP]".join(CHUNKS), prompt=prompt)
    assert joined.tobytes() == result.vector.tobytes()


def test_a_chunk_that_holds_the_separators_text(encoder: Encoder) -> None:
    """Split by looking for the token, it would be three chunks."""
    chunks = ["Berlin [SEP] is a city.", "It lies on the Spree."]
    (result,) = encoder.encode_chunks([chunks])
    assert [result.text(i) for i in range(len(result))] == chunks
    assert result.vectors.shape == (2, 32)
    first, second = result.token_spans
    assert (first[0], second[0]) == (0, first[1] + 1)
    assert first[1] == len(encoder.tokenizer.encode(chunks[0], add_special_tokens=False).ids)


def test_a_token_that_text_cannot_name(small: Path, tmp_path: Path) -> None:
    """Its id goes in, not its text: this one is in the vocabulary, but no tokenizer makes it from text."""
    encoder = Encoder(declared(small, tmp_path / "model", "[unused7]"), device="cpu")
    separator = 8
    assert encoder.tokenizer.id_to_token(separator) == "[unused7]"
    chunks = CHUNKS[:2]
    (result,) = encoder.encode_chunks([chunks])
    parts = [encoder.tokenizer.encode(text, add_special_tokens=False).ids for text in chunks]
    rows = rows_of(small, [101, *parts[0], separator, *parts[1], 102])
    expected = [rows[1 : 1 + len(parts[0])].mean(0), rows[2 + len(parts[0]) : -1].mean(0)]
    np.testing.assert_allclose(result.vectors, expected, atol=1e-5)
    np.testing.assert_allclose(result.vector, rows.mean(0), atol=1e-5)
    assert result.n_tokens == len(parts[0]) + 1 + len(parts[1])


def test_joiner_is_text(small: Path, encoder: Encoder) -> None:
    plain = Encoder(small, device="cpu")
    for joiner in ("", "\n\n", "[SEP]", " "):
        (ours,) = encoder.encode_chunks([CHUNKS], joiner=joiner)
        (expected,) = plain.encode_chunks([CHUNKS], joiner=joiner)
        assert ours.vectors.tobytes() == expected.vectors.tobytes()
        assert ours.spans == expected.spans
    (by_default,) = plain.encode_chunks([CHUNKS])
    (by_space,) = plain.encode_chunks([CHUNKS], joiner=" ")
    assert by_default.vectors.tobytes() == by_space.vectors.tobytes()


@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
def test_documents_do_not_touch_each_other(encoder: Encoder) -> None:
    documents = [CHUNKS, [], ["one"], CHUNKS[::-1], ["two words"] * 300]
    together = encoder.encode_chunks(documents)
    for chunks, result in zip(documents, together, strict=True):
        (alone,) = encoder.encode_chunks([chunks])
        assert len(result) == len(chunks)
        assert result.vectors.tobytes() == alone.vectors.tobytes()
        assert result.vector.tobytes() == alone.vector.tobytes()
    assert [len(result.windows) for result in together] == [1, 1, 1, 1, 3]
    assert together[4].n_tokens == 3 * 300 - 1
    spans = together[4].token_spans
    assert list(spans) == [(3 * i, 3 * i + 2) for i in range(300)]


def test_texts_have_no_separators(small: Path, encoder: Encoder) -> None:
    plain = Encoder(small, device="cpu")
    text = " ".join(CHUNKS)
    assert encoder.encode_chunks(text).vectors.tobytes() == plain.encode_chunks(text).vectors.tobytes()
    assert encoder.encode(text).tobytes() == plain.encode(text).tobytes()


def test_errors(small: Path, tmp_path: Path, encoder: Encoder) -> None:
    with pytest.raises(InputError, match=r"documents\[1\]\[1\] is blank; a chunk needs a token"):
        encoder.encode_chunks([CHUNKS, ["a", "", "b"]])
    with pytest.raises(CheckpointError, match="the separator token '<nope>' is not in the vocabulary"):
        Encoder(declared(small, tmp_path / "model", "<nope>"))
