"""Saved folders of every schema, as Longspan and sentence-transformers read them; and saving that fails."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import BertConfig, BertModel, BertTokenizerFast

from longspan import Encoder, InputError
from longspan.checkpoint.extras import FILE
from longspan.checkpoint.recipe import read_recipe
from longspan.checkpoint.tensors import Tensors

WIDTH = 16
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh:"]
TEXTS = ["a b c d e f g h", "h g", "", "a: b " * 10]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random BERT as transformers saves it."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.5,
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def modular(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a Dense and settings, as sentence-transformers saves it."""
    folder = tmp_path_factory.mktemp("modular")
    modules: list[Any] = [
        Transformer(str(plain)),
        Pooling(WIDTH, ["mean", "cls"]),
        Dense(2 * WIDTH, 8, activation_function=torch.nn.Tanh()),
    ]
    prompts = {"query": "a: ", "title": "b: "}
    model = SentenceTransformer(
        modules=modules, prompts=prompts, default_prompt_name="title", similarity_fn_name="dot", truncate_dim=4
    )
    model.save(str(folder))
    return folder


@pytest.fixture
def apart(modular: Path, tmp_path: Path) -> Path:
    """The same with the transformer in a folder of its own, and settings in the older schema."""
    folder = tmp_path / "apart"
    (folder / "0_Transformer").mkdir(parents=True)
    for path in modular.iterdir():
        whole = path.is_dir() or path.name in ("modules.json", "config_sentence_transformers.json")
        (shutil.copytree if path.is_dir() else shutil.copy)(
            path, (folder if whole else folder / "0_Transformer") / path.name
        )
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "0_Transformer" / "sentence_bert_config.json").write_text('{"max_seq_length": 20, "do_lower_case": true}')
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def same_vectors(folder: Path, **options: Any) -> None:
    """Longspan's and sentence-transformers' vectors of a folder agree, with its own settings."""
    ours, theirs = Encoder(folder, long_text="truncate", **options), SentenceTransformer(str(folder), device="cpu")
    assert ours.prompts == theirs.prompts
    assert ours.default_prompt_name == theirs.default_prompt_name
    assert ours.similarity_fn_name == theirs.similarity_fn_name
    assert ours.truncate_dim == theirs.truncate_dim
    assert ours.max_seq_length == theirs.max_seq_length
    for method in ("encode", "encode_query"):
        mine, other = (torch.tensor(getattr(model, method)(TEXTS)) for model in (ours, theirs))
        torch.testing.assert_close(mine, other, atol=2e-6, rtol=2e-6)


def same_settings(one: Encoder, other: Encoder) -> None:
    """A length that was set comes back as the checkpoint's own."""
    assert one.max_seq_length == other.max_seq_length
    assert replace(one._settings, max_seq_length=None) == replace(other._settings, max_seq_length=None)


# --- what is written -------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
@pytest.mark.parametrize("name", ["modular", "apart"])
def test_nothing_set_changes_nothing(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    source: Path = request.getfixturevalue(name)
    Encoder(source).save(tmp_path / "saved")
    saved = files_of(tmp_path / "saved")
    assert json.loads(saved.pop(FILE)) == {"format": 1, "long_text": "window", "ranges": {}}
    assert saved == files_of(source)
    same_vectors(tmp_path / "saved")


@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
@pytest.mark.parametrize("name", ["plain", "modular", "apart"])
def test_settings_come_back_in_both_libraries(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    source: Path = request.getfixturevalue(name)
    encoder = Encoder(source, prompts={"query": "c: ", "naïve": "d “: "}, default_prompt_name="query", truncate_dim=3)
    encoder.similarity_fn_name = "manhattan"
    encoder.max_seq_length = 9
    encoder.long_text = "error"
    encoder.save(tmp_path / "saved")
    again = Encoder(tmp_path / "saved")
    same_settings(again, encoder)
    same_vectors(tmp_path / "saved")
    again.truncate_dim = again.default_prompt_name = None
    again.max_seq_length = 12
    del again.prompts["naïve"]
    again.save(tmp_path / "again")
    same_settings(Encoder(tmp_path / "again"), again)
    same_vectors(tmp_path / "again")


@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
def test_plain_folder_becomes_one_of_sentence_transformers(plain: Path, tmp_path: Path) -> None:
    """Files that sentence-transformers does not read without a modules.json must not begin to count."""
    source = Path(shutil.copytree(plain, tmp_path / "source"))
    (source / "config_sentence_transformers.json").write_text('{"truncate_dim": 2, "prompts": {"query": "e: "}}')
    (source / "sentence_bert_config.json").write_text('{"max_seq_length": 5, "do_lower_case": true}')
    encoder = Encoder(source)
    encoder.save(tmp_path / "saved")
    again = Encoder(tmp_path / "saved")
    assert again._settings == encoder._settings
    assert again.max_seq_length == 64
    assert again.encode(TEXTS).tobytes() == encoder.encode(TEXTS).tobytes()
    same_vectors(tmp_path / "saved")


@pytest.mark.parametrize(
    "settings",
    [
        {"max_seq_length": 30},
        {"tokenizer_args": {"model_max_length": 20}},
        {"max_seq_length": 30, "processor_kwargs": {"model_max_length": 20}},
        {"max_seq_length": 30, "processing_kwargs": {"text": {"max_length": 20}, "common": {"max_length": 18}}},
        {},
    ],
)
def test_length_outweighs_every_other(modular: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    source = Path(shutil.copytree(modular, tmp_path / "source"))
    (source / "sentence_bert_config.json").write_text(json.dumps({**settings, "do_lower_case": True}))
    Encoder(source, max_seq_length=10).save(tmp_path / "saved")
    assert read_recipe(tmp_path / "saved").max_seq_length == 10
    assert (
        SentenceTransformer(str(tmp_path / "saved"), device="cpu").max_seq_length == 10
        or "processing_kwargs" in settings
    )
    assert read_recipe(tmp_path / "saved").lower_case


def test_only_the_models_own_files(modular: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(modular, tmp_path / "source"))
    (source / "pytorch_model.bin").write_text("pickle")
    (source / "LICENSE.txt").write_text("a licence")
    for folder in ("onnx", "checkpoint-500", ".cache"):
        (source / folder).mkdir()
        (source / folder / "model.safetensors").write_text("another")
    weights = source / "model.safetensors"
    weights.rename(tmp_path / "blob")
    weights.symlink_to(tmp_path / "blob")  # as in the hub's cache
    Encoder(source).save(tmp_path / "saved")
    assert set(files_of(tmp_path / "saved")) == {*files_of(modular), FILE, "LICENSE.txt"}
    assert not (tmp_path / "saved" / "model.safetensors").is_symlink()
    assert (tmp_path / "saved" / "model.safetensors").read_bytes() == (tmp_path / "blob").read_bytes()


def test_permissions_are_those_of_any_new_file(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    Encoder(plain).save(tmp_path / "saved")
    assert (tmp_path / "saved").stat().st_mode == (tmp_path / "other").stat().st_mode


# --- where it is written ---------------------------------------------------------------------------------------------


def test_place(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder(plain)
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    encoder.save(tmp_path / "link")
    assert read_recipe(tmp_path / "empty").files.folder == tmp_path / "empty"
    monkeypatch.chdir(tmp_path)
    encoder.save("relative")
    assert (tmp_path / "relative" / "config.json").exists()
    (tmp_path / "file").write_text("text")
    for place, message in (
        (tmp_path / "empty", "empty is not empty; give a folder that does not exist yet"),
        (tmp_path / "file", "file is a file; give a folder"),
        (tmp_path / "no" / "such", f"the folder {tmp_path / 'no'} does not exist"),
        (plain, "is not empty"),
    ):
        before = sorted(place.parent.iterdir()) if place.parent.exists() else []
        with pytest.raises(InputError) as caught:
            encoder.save(place)
        assert message in str(caught.value)
        assert before == (sorted(place.parent.iterdir()) if place.parent.exists() else [])


def test_what_was_set_is_checked(plain: Path, tmp_path: Path) -> None:
    for name, value, message in (
        ("long_text", "cut", "long_text is 'cut'"),
        ("default_prompt_name", "absent", "no prompt named 'absent'"),
        ("prompts", {"query": 7}, r"prompts\['query'\] is int"),
        ("truncate_dim", 17, "truncate_dim is 17"),
    ):
        encoder = Encoder(plain)
        setattr(encoder, name, value)
        with pytest.raises(InputError, match=message):
            encoder.save(tmp_path / "saved")
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_failing_at_every_file_leaves_nothing(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    encoder, fsync = Encoder(plain), os.fsync
    calls: list[int] = []
    allowed = [1000]

    def failing(file: int) -> None:
        if len(calls) == allowed[0]:
            raise error
        calls.append(file)
        fsync(file)

    monkeypatch.setattr(os, "fsync", failing)
    encoder.save(tmp_path / "whole")
    total = len(calls)
    assert total > len(files_of(tmp_path / "whole"))
    for allowed[0] in range(total - 1):  # the last call comes after the folder is in its place
        calls.clear()
        with pytest.raises(type(error)):
            encoder.save(tmp_path / "saved")
        assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_a_place_that_is_taken_meanwhile(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, rename = Encoder(plain), os.rename

    def late(work: Path, target: Path) -> None:
        target.mkdir()
        (target / "theirs").write_text("theirs")
        rename(work, target)

    monkeypatch.setattr(os, "rename", late)
    with pytest.raises(InputError, match="is not empty"):
        encoder.save(tmp_path / "saved")
    assert list(files_of(tmp_path)) == ["saved/theirs"]


def test_shards_wherever_the_index_says(plain: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(plain, tmp_path / "source"))
    (source / "shards").mkdir()
    shard = (source / "model.safetensors").rename(source / "shards" / "a.safetensors")
    weight_map = dict.fromkeys(Tensors.open_file(shard), "shards/a.safetensors")
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    encoder = Encoder(source)
    encoder.save(tmp_path / "saved")
    assert Encoder(tmp_path / "saved").encode(TEXTS[0]).tobytes() == encoder.encode(TEXTS[0]).tobytes()
