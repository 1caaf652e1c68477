"""What a caller chooses instead of what a folder says: a Dense, a pooling, the prompt's part in it."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Router, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from longspan import CheckpointError, Encoder, InputError, InputTypeError
from longspan.checkpoint.choices import INSTRUCTORS, Choices

from .harness import SLACK, texts_of
from .test_pipelines import saved

WIDTH = 48
TEXTS = [text + " m n m o" for text in texts_of((0, 1, 5, 20, 60))]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("plain"), "mpnet", None, 90)


def dense(width: int) -> Dense:
    torch.manual_seed(width)
    return Dense(WIDTH, width)


@pytest.fixture(scope="module")
def variants(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As Stella: modules.json names one Dense, beside which others lie."""
    folder = tmp_path_factory.mktemp("variants") / "model"
    modules: list[Any] = [Transformer(str(plain)), Pooling(WIDTH), dense(24), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    for width in (8, 32):
        (folder / f"2_Dense_{width}").mkdir()
        dense(width).save(str(folder / f"2_Dense_{width}"))
    (folder / "2_Dense_other").mkdir()
    return folder


# --- Dense -----------------------------------------------------------------------------------------------------------


def by_hand(folder: Path, path: str, target: Path) -> Path:
    """The model with another path of its Dense, as Stella's authors advise."""
    shutil.copytree(folder, target)
    modules = json.loads((target / "modules.json").read_text())
    modules[2]["path"] = path
    (target / "modules.json").write_text(json.dumps(modules))
    return target


@pytest.mark.parametrize(("name", "width"), [("2_Dense", 24), ("2_Dense_8", 8), ("2_Dense_32", 32)])
def test_dense_variants(variants: Path, tmp_path: Path, name: str, width: int) -> None:
    encoder = Encoder(variants, dense=name)
    peer = SentenceTransformer(str(by_hand(variants, name, tmp_path / "hand")), device="cpu")
    assert encoder.get_embedding_dimension() == width
    np.testing.assert_allclose(encoder.encode(TEXTS), peer.encode(TEXTS), atol=1e-6)
    encoder.save(tmp_path / "saved")
    again = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert np.array_equal(again.encode(TEXTS), peer.encode(TEXTS))
    copied = pickle.loads(pickle.dumps(encoder))
    assert np.array_equal(copied.encode(TEXTS), encoder.encode(TEXTS))
    # The others are saved too, and a named one has the rest as its variants.
    assert Encoder(tmp_path / "saved", dense="2_Dense_8").get_embedding_dimension() == 8
    assert Encoder(tmp_path / "saved", dense="2_Dense").get_embedding_dimension() == 24


def test_dense_variants_that_are_not_there(variants: Path, plain: Path) -> None:
    with pytest.raises(InputError, match="there is no Dense '2_Dense_9'; there are 2_Dense, 2_Dense_32, 2_Dense_8"):
        Encoder(variants, dense="2_Dense_9")
    with pytest.raises(InputError, match="there is no Dense '2_Dense_other'"):
        Encoder(variants, dense="2_Dense_other")
    with pytest.raises(InputError, match="there is no Dense '2_Dense'; there are none"):
        Encoder(plain, dense="2_Dense")
    with pytest.raises(InputTypeError, match="dense is int, expected the name of a module's folder"):
        Encoder(variants, dense=8)  # type: ignore[arg-type]


def test_dense_variants_in_a_router(plain: Path, tmp_path: Path) -> None:
    routes: Any = {"query": [dense(8)], "document": [dense(8)]}
    modules: list[Any] = [Transformer(str(plain)), Pooling(WIDTH), Router(routes)]
    folder = tmp_path / "model"
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    (folder / "2_Router" / "query_0_Dense_16").mkdir()
    dense(16).save(str(folder / "2_Router" / "query_0_Dense_16"))
    encoder = Encoder(folder, dense="query_0_Dense_16", truncate_dim=8)
    assert not np.allclose(encoder.encode_query(TEXTS), Encoder(folder).encode_query(TEXTS))
    assert np.array_equal(encoder.encode_document(TEXTS), Encoder(folder).encode_document(TEXTS))
    with pytest.raises(InputError, match="a choice of dense in a Router is not saved"):
        encoder.save(tmp_path / "saved")


# --- pooling ---------------------------------------------------------------------------------------------------------

WORD = 4 + 12  # the id of "m"
Rows = Callable[[Any, Any], Any]

FORMULAS: dict[str, Rows] = {
    "cls": lambda rows, ids: rows[0],
    "mean": lambda rows, ids: rows.mean(0),
    "max": lambda rows, ids: rows.max(0),
    "mean_sqrt_len_tokens": lambda rows, ids: rows.sum(0) / len(rows) ** 0.5,
    "weightedmean": lambda rows, ids: np.average(rows, 0, np.arange(1, len(rows) + 1)),
    "lasttoken": lambda rows, ids: rows[-1],
    "lasttoken:1": lambda rows, ids: rows[-1],
    "lasttoken:8": lambda rows, ids: rows[-8:].mean(0),
    "lasttoken:70": lambda rows, ids: rows[-70:].mean(0),
    "token:m": lambda rows, ids: rows[ids == WORD].mean(0),
    "token:</s>": lambda rows, ids: rows[-1],
}
POOLINGS: list[str | tuple[str, ...]] = [*FORMULAS, ("token:m", "cls"), ("lasttoken:70", "max", "mean", "lasttoken:8")]


def by_formula(plain: Path, dtype: torch.dtype, pooling: str | tuple[str, ...]) -> Any:
    """[n, d] float64, from the token vectors of sentence-transformers."""
    peer = SentenceTransformer(str(plain), device="cpu").to(dtype)
    modes = (pooling,) if isinstance(pooling, str) else pooling
    vectors = []
    for text in TEXTS:
        ids = np.array(peer.tokenizer(text)["input_ids"])
        (rows,) = peer.encode([text], output_value="token_embeddings")
        rows = rows.numpy()
        vectors.append(np.concatenate([FORMULAS[mode](rows, ids) for mode in modes]))
    return np.array(vectors, np.float64)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling(plain: Path, pooling: str | tuple[str, ...]) -> None:
    exact, theirs = (by_formula(plain, dtype, pooling) for dtype in (torch.float64, torch.float32))
    ours = Encoder(plain, pooling=pooling).encode(TEXTS)
    assert np.abs(ours - exact).max() <= 2 * np.abs(theirs - exact).max() + SLACK


def test_a_checkpoint_says_so(plain: Path, tmp_path: Path) -> None:
    """What sentence-transformers does not know stands in the same field, and makes it refuse rather than differ."""
    for number, pooling in enumerate(POOLINGS):
        target = tmp_path / str(number)
        encoder = Encoder(plain, pooling=pooling, include_prompt=number % 2 == 0)
        encoder.save(target)
        again = Encoder(target)
        for prompt in (None, "a b "):
            vectors = encoder.encode(TEXTS, prompt=prompt)
            assert np.array_equal(again.encode(TEXTS, prompt=prompt), vectors)
            if ":" in str(pooling):
                with pytest.raises(ValueError, match="Invalid pooling mode"):
                    SentenceTransformer(str(target), device="cpu")
            else:
                peer = SentenceTransformer(str(target), device="cpu")
                np.testing.assert_allclose(peer.encode(TEXTS, prompt=prompt), vectors, atol=2e-6, rtol=1e-6)


def test_instead_of_what_modules_say(variants: Path, tmp_path: Path) -> None:
    """The file's other fields stay, in both schemas of it."""
    encoder = Encoder(variants, pooling="lasttoken")
    encoder.save(tmp_path / "saved")
    peer = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    np.testing.assert_allclose(peer.encode(TEXTS), encoder.encode(TEXTS), atol=1e-6)
    first = Encoder(tmp_path / "saved", pooling=["cls"])
    first.save(tmp_path / "again")
    peer = SentenceTransformer(str(tmp_path / "again"), device="cpu")
    np.testing.assert_allclose(peer.encode(TEXTS), first.encode(TEXTS), atol=1e-6)
    with pytest.raises(CheckpointError, match="'in_features' is 48, but the module before it gives vectors of 96"):
        Encoder(variants, pooling=("cls", "mean"))


def test_chunks(plain: Path) -> None:
    """A span pools its own last tokens, and its own of a token or else all."""
    text = "a b m c m d e f"
    spans = [(0, 5), (4, 11), (10, 15)]  # a b m | m c m d | d e f
    rows = Encoder(plain).encode(text, output_value="token_embeddings")[1:-1].astype(np.float64)
    found = Encoder(plain, pooling=("token:m", "lasttoken:2")).encode_chunks(text, spans=spans)
    expected = [
        np.concatenate((rows[2], rows[1:3].mean(0))),
        np.concatenate((rows[[2, 4]].mean(0), rows[4:6].mean(0))),
        np.concatenate((rows[5:].mean(0), rows[6:].mean(0))),
    ]
    np.testing.assert_allclose(found.vectors, expected, atol=1e-6)
    np.testing.assert_allclose(found.vector[:WIDTH], rows[[2, 4]].mean(0), atol=1e-6)


@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
def test_windows(plain: Path) -> None:
    """Last tokens average the windows by owned tokens; those of a token count once each, wherever they are."""
    text = " ".join("abcdefghijklm"[i % 13] for i in range(60))
    windowed = Encoder(plain, max_seq_length=22, pooling=("lasttoken:3", "token:m"))
    document = windowed.encode_chunks(text, spans=[(0, len(text))])
    bodies = [
        Encoder(plain).encode(" ".join(text.split()[at.start : at.end]), output_value="token_embeddings")
        for at in document.windows
    ]
    owned = [at.owned_end - at.owned_start for at in document.windows]
    last = np.average([rows[-3:].mean(0) for rows in bodies], axis=0, weights=owned)
    own = [
        rows[1 + place - at.start]
        for rows, at in zip(bodies, document.windows, strict=True)
        for place in range(at.owned_start, at.owned_end)
        if text.split()[place] == "m"
    ]
    np.testing.assert_allclose(document.vector, np.concatenate((last, np.mean(own, 0))), atol=1e-6)
    assert len(own) == 4
    np.testing.assert_allclose(document.vectors[0][WIDTH:], np.mean(own, 0), atol=1e-6)


def test_a_text_without_the_token(plain: Path) -> None:
    encoder = Encoder(plain, pooling=("mean", "token:m"))
    for call, what in ((encoder.encode, "inputs"), (encoder.encode_chunks, "documents")):
        with pytest.raises(InputError, match=rf"{what}\[1\] has no 'm', from which vectors are pooled"):
            call(["m", "a b", "m"])
    stream = encoder.stream(["m", "a m", "a b"])
    assert [next(stream).shape for _ in range(2)] == [(2 * WIDTH,)] * 2
    with pytest.raises(InputError, match=r"texts\[2\] has no 'm'"):
        next(stream)
    assert encoder.encode("a", prompt="m ").shape == (2 * WIDTH,)
    with pytest.raises(InputError, match=r"inputs\[0\] has no 'm'"):
        Encoder(plain, pooling="token:m", include_prompt=False).encode("a", prompt="m ")


@pytest.mark.parametrize(
    ("pooling", "message"),
    [
        ("median", "pooling is 'median'; known are cls, mean"),
        ("lasttoken:0", "pooling is 'lasttoken:0'"),
        ("lasttoken:x", "pooling is 'lasttoken:x'"),
        ("mean:2", "pooling is 'mean:2'"),
        ("token", "pooling is 'token'; .* token:TOKEN"),
        ("token:", "pooling is 'token:'"),
        (["mean", 3], "pooling is 3"),
        ([], "pooling is list, expected a mode"),
        (3, "pooling is int, expected a mode"),
    ],
)
def test_bad_pooling(plain: Path, pooling: Any, message: str) -> None:
    with pytest.raises((InputError, InputTypeError), match=message):
        Encoder(plain, pooling=pooling)


def test_a_token_that_is_not_there(plain: Path) -> None:
    with pytest.raises(CheckpointError, match=r"the vocabulary lacks the token of the pooling 'token:\[MASK\]'"):
        Encoder(plain, pooling="token:[MASK]")


# --- the prompt ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["cls", "mean", "max", "weightedmean", "lasttoken"])
def test_include_prompt(plain: Path, tmp_path: Path, pooling: str) -> None:
    modules: list[Any] = [Transformer(str(plain)), Pooling(WIDTH, pooling), dense(8)]
    peer = SentenceTransformer(modules=modules, device="cpu")
    peer.save(str(tmp_path / "model"))
    encoder = Encoder(tmp_path / "model", include_prompt=False)
    encoder.save(tmp_path / "saved")
    peer.set_pooling_include_prompt(False)
    for mine in (encoder, Encoder(tmp_path / "saved"), pickle.loads(pickle.dumps(encoder))):
        for prompt in ("a b c ", None):
            theirs = peer.encode(TEXTS, prompt=prompt)
            np.testing.assert_allclose(mine.encode(TEXTS, prompt=prompt), theirs, atol=1e-6)
    included = Encoder(tmp_path / "saved", include_prompt=True).encode(TEXTS, prompt="a b c ")
    assert np.array_equal(included, Encoder(tmp_path / "model").encode(TEXTS, prompt="a b c "))
    with pytest.raises(InputTypeError, match="include_prompt is int, expected True or False"):
        Encoder(tmp_path / "model", include_prompt=0)  # type: ignore[arg-type]


def test_instructors_leave_the_prompt_out() -> None:
    """As sentence-transformers, which knows them by name; unless something else is asked for."""
    for name in INSTRUCTORS:
        assert Choices.of(name, None, None, None).include_prompt is False
        assert Choices.of(name, None, None, True).include_prompt is True
    assert Choices.of("hkunlp/other", None, None, None).include_prompt is None
