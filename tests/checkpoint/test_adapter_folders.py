"""Folders that hold an adapter and no model: the base that it names is loaded, with the adapter merged."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tests.checkpoint.folders import update
from tests.checkpoint.test_adapter import adapted
from tests.models.harness import texts_of
from transformers import AutoModel, AutoTokenizer

from longspan import CheckpointError, CheckpointNotFoundError, Encoder
from longspan.cli.main import main

TEXTS = texts_of((1, 5, 20))


def copy_tokenizer(base: Path, adapter: Path) -> None:
    for path in base.glob("tokenizer*"):
        shutil.copy(path, adapter)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A base, and an adapter that names it."""
    return adapted(tmp_path, "plain")


@pytest.mark.parametrize("name", ["plain", "of a language model"])
def test_plain_folder(tmp_path: Path, name: str) -> None:
    """The bits of the base with the adapter as an option, and the vectors that transformers has."""
    base, adapter = adapted(tmp_path, name)
    ours = Encoder(adapter, pooling="mean").encode(TEXTS)
    np.testing.assert_array_equal(ours, Encoder(base, adapter=adapter, pooling="mean").encode(TEXTS))
    assert np.abs(ours - Encoder(base, pooling="mean").encode(TEXTS)).max() > 0.01
    model, tokenizer = AutoModel.from_pretrained(str(adapter)).eval(), AutoTokenizer.from_pretrained(str(base))
    with torch.inference_mode():
        theirs = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0).numpy() for text in TEXTS]
    np.testing.assert_allclose(ours, np.stack(theirs), atol=5e-6)


def test_sentence_transformers_folder(tmp_path: Path) -> None:
    """Its modules, settings and tokenizer are the adapter's, config and weights the base's."""
    base, adapter = adapted(tmp_path, "plain")
    saved = tmp_path / "saved"
    modules = [Transformer(str(base), max_seq_length=12), Pooling(32, "cls")]
    SentenceTransformer(modules=modules, device="cpu").save(str(saved))
    for name in ("config.json", "model.safetensors"):  # of a model with an adapter it writes this alone
        (saved / name).unlink()
    for path in adapter.glob("adapter_*"):
        shutil.copy(path, saved)
    theirs = SentenceTransformer(str(saved), device="cpu")
    ours = Encoder(saved, long_text="truncate")
    assert ours.max_seq_length == theirs.max_seq_length == 12
    np.testing.assert_allclose(ours.encode(TEXTS), theirs.encode(TEXTS), atol=5e-6)
    assert (ours.encode(TEXTS) == Encoder(saved).encode(TEXTS)).all(axis=1).tolist() == [True, True, False]


def test_a_tokenizer_beside_the_adapter_counts(folders: tuple[Path, Path]) -> None:
    base, adapter = folders
    spec = json.loads((base / "tokenizer.json").read_text())
    spec["normalizer"] = {"type": "Replace", "pattern": {"String": "w1"}, "content": "w2"}
    (adapter / "tokenizer.json").write_text(json.dumps(spec))
    ours = Encoder(adapter)
    np.testing.assert_array_equal(ours.encode("w1 w3"), ours.encode("w2 w3"))


def test_an_adapter_beside_weights_is_added_to_them(folders: tuple[Path, Path]) -> None:
    base, adapter = folders
    expected = Encoder(adapter).encode(TEXTS)
    for path in adapter.glob("adapter_*"):
        shutil.copy(path, base)
    update(base / "adapter_config.json", base_model_name_or_path="nobody/has-this")
    np.testing.assert_array_equal(Encoder(base).encode(TEXTS), expected)


def test_config_beside_the_adapter_counts(folders: tuple[Path, Path]) -> None:
    base, adapter = folders
    config = json.loads((base / "config.json").read_text())
    (adapter / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 0.1}))
    expected = Encoder(adapter).encode(TEXTS)
    update(base / "config.json", layer_norm_eps=0.1)
    np.testing.assert_array_equal(Encoder(base, adapter=adapter).encode(TEXTS), expected)


def test_two_adapters(folders: tuple[Path, Path]) -> None:
    """One that the folder is, one more as an option: LLM2Vec's supervised adapters come upon others."""
    base, adapter = folders
    once, twice = (Encoder(base, adapter=adapter).encode(TEXTS), Encoder(adapter, adapter=adapter).encode(TEXTS))
    assert np.abs(once - twice).max() > 0.01


def test_a_base_from_the_cache(folders: tuple[Path, Path], tmp_path: Path) -> None:
    base, adapter = folders
    expected = Encoder(adapter).encode(TEXTS)
    repository = tmp_path / "hub" / "models--somebody--base"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(base, repository / "snapshots" / ("0" * 40))
    update(adapter / "adapter_config.json", base_model_name_or_path="somebody/base")
    encoder = Encoder(adapter, cache_folder=tmp_path / "hub", local_files_only=True)
    np.testing.assert_array_equal(encoder.encode(TEXTS), expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(encoder)).encode(TEXTS), expected)
    with pytest.raises(CheckpointNotFoundError, match=r"'base_model_name_or_path' names .* not to be had"):
        Encoder(adapter, cache_folder=tmp_path / "another", local_files_only=True)


def test_pickled_adapter(folders: tuple[Path, Path]) -> None:
    _, adapter = folders
    expected = Encoder(adapter).encode(TEXTS)
    torch.save(load_file(adapter / "adapter_model.safetensors"), adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    np.testing.assert_array_equal(Encoder(adapter).encode(TEXTS), expected)
    (adapter / "adapter_model.bin").unlink()
    with pytest.raises(CheckpointNotFoundError, match=r"adapter_model\.safetensors does not exist"):
        Encoder(adapter)


def test_errors(folders: tuple[Path, Path], tmp_path: Path) -> None:
    base, adapter = folders
    config = adapter / "adapter_config.json"
    for name, message in [
        (str(tmp_path / "moved"), rf"{tmp_path}/moved does not exist"),
        (str(adapter), "holds no config.json with weights"),
        (None, "'base_model_name_or_path' is missing"),
        (7, "'base_model_name_or_path' is 7, expected a string"),
    ]:
        update(config, base_model_name_or_path=name)
        with pytest.raises(CheckpointError, match=rf"adapter_config\.json: field .*{message}"):
            Encoder(adapter)
    update(config, base_model_name_or_path=str(base))
    (base / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=f"field 'base_model_name_or_path' is .*{base} holds no config.json with"):
        Encoder(adapter)


def test_commands_take_such_folders(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    base, adapter = folders
    copy_tokenizer(base, adapter)  # which sentence-transformers takes from nowhere else
    assert main(["info", str(adapter)]) == 0
    assert "bert" in capsys.readouterr().out
    assert main(["verify", str(adapter)]) == 0
