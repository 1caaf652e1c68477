"""StaticEmbedding: a table of token vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules
from tokenizers import Tokenizer

from longspan import CheckpointError, Encoder, InputError

from .harness import VOCABULARY, save_tokenizer, texts_of

TEXTS = texts_of((0, 1, 2, 20, 600))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("static")
    save_tokenizer(folder)
    torch.manual_seed(0)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    table = modules.StaticEmbedding(tokenizer, torch.randn(len(VOCABULARY), 24))
    SentenceTransformer(modules=[table, modules.Normalize()], device="cpu").save(str(folder / "saved"))
    return folder / "saved"


def test_vectors(saved: Path) -> None:
    """As sentence-transformers', an empty text's too, and without a limit on the length."""
    theirs = SentenceTransformer(str(saved), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(Encoder(saved).encode(TEXTS), theirs, atol=1e-6)


def test_chunks_know_their_own_tokens_alone(saved: Path) -> None:
    encoder = Encoder(saved)
    document = encoder.encode_chunks(TEXTS[-1], chunk_tokens=50)
    chunks = [document.text(index) for index in range(len(document))]
    np.testing.assert_allclose(document.vectors, encoder.encode(chunks), atol=1e-6)


def test_errors(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a table of token vectors: it has no layers"):
        Encoder(saved, layers=1)
    for path in saved.rglob("*"):
        if path.is_file():
            target = tmp_path / path.relative_to(saved)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    (file,) = tmp_path.rglob("model.safetensors")
    save_file({"other": torch.zeros(3)}, file)
    with pytest.raises(CheckpointError, match=r"has no table 'embedding\.weight'"):
        Encoder(tmp_path)
