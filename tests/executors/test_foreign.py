"""Models that transformers runs: their token vectors, our pooling."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules
from tests.models.harness import VOCABULARY, save, texts_of
from transformers import AlbertConfig, AlbertModel, BertConfig, BertModel

from longspan import CheckpointError, Encoder, InputError

TEXTS = texts_of((0, 1, 2, 5, 5, 20, 64))
SMALL = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "max_position_embeddings": 66,
}


@pytest.fixture(scope="module")
def albert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model type that Longspan does not know, as a whole pipeline."""
    folder = tmp_path_factory.mktemp("albert")
    save(folder / "plain", AlbertModel(AlbertConfig(embedding_size=16, **SMALL)))
    parts = [modules.Transformer(str(folder / "plain")), modules.Pooling(32), modules.Normalize()]
    SentenceTransformer(modules=parts, device="cpu").save(str(folder / "saved"))
    return folder / "saved"


def test_vectors(albert: Path) -> None:
    """As sentence-transformers'."""
    theirs = SentenceTransformer(str(albert), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(Encoder(albert, backend="transformers", device="cpu").encode(TEXTS), theirs, atol=2e-6)


def test_the_error_for_an_unknown_model_offers_it(albert: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'albert', which is not supported.*backend='transformers'"):
        Encoder(albert)


def test_chunks_and_windows(tmp_path: Path) -> None:
    """The same pipeline around another body: chunks, windows and cuts come out as with our own."""
    folder = save(tmp_path, BertModel(BertConfig(**SMALL)))
    text = texts_of((300,))[0]
    ours, theirs = Encoder(folder, device="cpu"), Encoder(folder, backend="transformers", device="cpu")
    a, b = (encoder.encode_chunks(text, chunk_tokens=(16, 40), truncate_dim=16) for encoder in (ours, theirs))
    assert a.windows == b.windows
    for size in (16, 40):
        assert a.levels[size].spans == b.levels[size].spans
        np.testing.assert_allclose(a.levels[size].vectors, b.levels[size].vectors, atol=1e-5)
    np.testing.assert_allclose(a.vector, b.vector, atol=1e-5)


@pytest.mark.parametrize("options", [{"layers": 1}, {"tap": -2}, {"adapter": "x"}])
def test_what_it_does_not_do(albert: Path, options: dict[str, object]) -> None:
    with pytest.raises(InputError, match="runs a model as it is"):
        Encoder(albert, backend="transformers", device="cpu", **options)  # type: ignore[arg-type]


def test_a_config_without_a_width(albert: Path, tmp_path: Path) -> None:
    for path in albert.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "modules.json").unlink()
    config = json.loads((albert / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "hidden_size"}))
    with pytest.raises(CheckpointError, match=re.escape("none of the fields hidden_size, n_embd")):
        Encoder(tmp_path, backend="transformers", device="cpu")
