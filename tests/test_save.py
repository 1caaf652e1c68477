"""`Encoder.save` on the real model: the same vectors, and calibrated ranges that serve at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from longspan import CheckpointError, Encoder, InputError, semantic_search

from .processes import output_of

TEXTS = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium.", ""]


@pytest.fixture(scope="module")
def encoder(minilm: Path) -> Encoder:
    encoder = Encoder(minilm, prompts={"query": "Question: "})
    encoder.calibrate(TEXTS)
    encoder.calibrate(TEXTS, truncate_dim=64)
    return encoder


@pytest.fixture(scope="module")
def saved(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    encoder.save(folder)
    return folder


def test_same_bits(encoder: Encoder, saved: Path) -> None:
    again = Encoder(saved)
    assert again.encode(TEXTS).tobytes() == encoder.encode(TEXTS).tobytes()
    assert again.encode_query(TEXTS[0]).tobytes() == encoder.encode_query(TEXTS[0]).tobytes()


def test_ranges_serve_a_single_query(encoder: Encoder, saved: Path) -> None:
    again = Encoder(saved)
    assert sorted(again.ranges) == [64, 384]
    for precision in ("int8", "uint8"):
        for dimension in (64, None):
            mine, theirs = (
                model.encode_query(TEXTS[0], precision=precision, truncate_dim=dimension) for model in (again, encoder)
            )
            assert mine.tobytes() == theirs.tobytes()
    with pytest.raises(InputError, match="calibrate"):
        again.encode(TEXTS[0], precision="int8", truncate_dim=32)
    codes = again.encode(TEXTS, precision="int8")
    hits = semantic_search(again.encode(TEXTS[1]), codes, 1, corpus_precision="int8", ranges=again.ranges[384])
    assert hits.indices.tolist() == [[1]]


def test_ranges_know_what_they_are_of(small: Path, tmp_path: Path) -> None:
    """This model's vectors are not of unit length: ranges of those would waste most levels on vectors that are."""
    encoder = Encoder(small)
    encoder.calibrate(TEXTS)
    with pytest.raises(InputError, match=r"vectors of the checkpoint's own .* normalize_embeddings=True\) first"):
        encoder.encode(TEXTS, precision="int8", normalize_embeddings=True)
    encoder.calibrate(TEXTS, normalize_embeddings=True)
    encoder.save(tmp_path / "model")
    again = Encoder(tmp_path / "model")
    options: dict[str, Any] = {"precision": "int8", "normalize_embeddings": True}
    codes = again.encode(TEXTS, **options)
    assert codes.tobytes() == encoder.encode(TEXTS, **options).tobytes()
    assert codes.min() == -128
    assert codes.max() == 127
    with pytest.raises(InputError, match=r"vectors of unit length .* normalize_embeddings=False\) first"):
        again.encode(TEXTS, precision="uint8")


def test_sentence_transformers_gives_equal_vectors(encoder: Encoder, saved: Path) -> None:
    peer = SentenceTransformer(str(saved), device="cpu")
    np.testing.assert_allclose(peer.encode(TEXTS), encoder.encode(TEXTS), atol=2e-6)
    np.testing.assert_allclose(peer.encode_query(TEXTS), encoder.encode_query(TEXTS), atol=2e-6)


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
def test_narrow_weights_in_panels(minilm: Path, tmp_path: Path, weights: Any) -> None:
    """They are mapped, not copied; the vectors are the same, whatever the threads."""
    texts = [*TEXTS, "A long story about the sea. " * 90]
    before = Encoder(minilm, weights=weights, threads=2)
    before.save(tmp_path / "saved")
    whole, narrow = (folder / "model.safetensors" for folder in (minilm, tmp_path / "saved"))
    assert not narrow.exists()
    assert (tmp_path / "saved" / "longspan.safetensors").stat().st_size < 0.8 * whole.stat().st_size
    for threads in (1, 2):
        after = Encoder(tmp_path / "saved", threads=threads)
        assert after.encode(texts).tobytes() == before.encode(texts).tobytes()
        chunks = [encoder.encode_chunks(texts[-1], chunk_tokens=64).vectors for encoder in (after, before)]
        assert chunks[0].tobytes() == chunks[1].tobytes()


def test_damaged_file(saved: Path, tmp_path: Path) -> None:
    for path in saved.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "longspan.json").unlink()
    (tmp_path / "longspan.json").write_text('{"format": 99}')
    with pytest.raises(CheckpointError, match=r"longspan\.json: field 'format' is 99, .* upgrade"):
        Encoder(tmp_path)


def test_a_file_that_cannot_be_written(minilm: Path, tmp_path: Path) -> None:
    """The system itself refuses to write more than so many bytes of a file, as it does on a full disk."""
    script = """
        import resource, sys
        from longspan import Encoder

        encoder = Encoder(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        try:
            encoder.save(sys.argv[2])
        except OSError as error:
            print("refused:", error.strerror)
    """
    assert output_of(script, minilm, tmp_path / "saved") == "refused: File too large\n"
    assert not list(tmp_path.iterdir())
