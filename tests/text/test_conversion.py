"""Tokenizers without a tokenizer.json, and special tokens that only tokenizer_config.json asks for."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoTokenizer

from longspan import CheckpointError, CheckpointNotFoundError
from longspan.text import conversion
from longspan.text.tokenizer import Tokenizer

TEXTS = ["Hello world", "  two  spaces", "naïve 😀 text\n", ""]


@pytest.fixture(scope="module")
def merges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RoBERTa's files: vocab.json and merges.txt."""
    folder = tmp_path_factory.mktemp("merges")
    trained = ByteLevelBPETokenizer()
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(["Hello world, hello two spaces and text"] * 3, vocab_size=300, special_tokens=specials)
    trained.save_model(str(folder))
    (folder / "config.json").write_text(json.dumps({"model_type": "roberta"}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "RobertaTokenizer"}))
    return folder


def test_merges(merges: Path) -> None:
    """As transformers reads them."""
    ours = Tokenizer.load(merges)
    theirs = AutoTokenizer.from_pretrained(str(merges))
    for text, tokens in zip(TEXTS, ours.encode(TEXTS, offsets=False), strict=True):
        assert [*ours.prefix, *tokens.ids, *ours.suffix] == theirs(text)["input_ids"]
    assert len(ours.prefix) == len(ours.suffix) == 1


def test_without_transformers(merges: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match=r"converting merges\.txt needs transformers"):
        Tokenizer.load(merges)


def test_nothing_to_convert(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match=r"has no tokenizer\.json, nor another tokenizer's file"):
        Tokenizer.load(tmp_path)


def test_a_broken_model(tmp_path: Path) -> None:
    assert importlib.util.find_spec("transformers") is not None
    (tmp_path / "tokenizer.model").write_bytes(b"no model")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(CheckpointError, match=r"tokenizer\.model cannot be converted by transformers"):
        Tokenizer.load(tmp_path)


def words(folder: Path, template: str | None, **config: Any) -> Tokenizer:
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4}
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    raw.add_special_tokens(["<s>", "</s>"])
    if template:
        raw.post_processor = tokenizers.processors.TemplateProcessing(
            single=template, special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    raw.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": {"content": "</s>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps({**names, **config}))
    return Tokenizer.load(folder)


@pytest.mark.parametrize(
    ("template", "config", "prefix", "suffix"),
    [
        (None, {}, [], []),
        (None, {"add_eos_token": True}, [], [2]),
        (None, {"add_bos_token": True, "add_eos_token": True}, [1], [2]),
        ("<s> $A", {"add_bos_token": True, "add_eos_token": True}, [1], [2]),
        ("<s> $A", {"add_eos_token": True}, [1], [2]),
        ("<s> $A </s>", {"add_bos_token": True, "add_eos_token": True}, [1], [2]),
        ("<s> $A </s>", {"add_bos_token": False, "add_eos_token": False}, [1], [2]),
        ("$A </s>", {"add_bos_token": True}, [1], [2]),
        ("<s> $A", {"add_bos_token": True, "add_eos_token": True, "eos_token": "<s>"}, [1], [1]),
        ("$A <s>", {"add_bos_token": True, "add_eos_token": True, "eos_token": "<s>"}, [1], [1]),
        ("<s> $A", {"add_eos_token": True, "eos_token": "<s>"}, [1], [1]),
    ],
)
def test_forced_specials(
    tmp_path: Path, template: str | None, config: dict[str, bool], prefix: list[int], suffix: list[int]
) -> None:
    """What `add_bos_token` and `add_eos_token` ask for is added; what the tokenizer.json adds stays."""
    tokenizer = words(tmp_path, template, **config)
    assert (tokenizer.prefix.tolist(), tokenizer.suffix.tolist()) == (prefix, suffix)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"eos_token": "<end>"},
            "'add_eos_token' is true, but 'eos_token' is '<end>', which the tokenizer does not know",
        ),
        ({"eos_token": None}, "'add_eos_token' is true, but there is no 'eos_token'"),
        ({"eos_token": {"content": None}}, "'add_eos_token' is true, but there is no 'eos_token'"),
    ],
)
def test_a_special_that_is_not_there(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=re.escape(f"{tmp_path / 'tokenizer_config.json'}: {message}")):
        words(tmp_path, None, add_eos_token=True, **config)


@pytest.mark.parametrize(
    ("config", "suffix"),
    [
        ({"eos_token": "</s>"}, [1]),
        ({"eos_token": None}, [1]),
        ({"eos_token": "</s>", "added_tokens_decoder": {}}, [2]),
    ],
)
def test_specials_in_a_file_of_their_own(tmp_path: Path, config: dict[str, Any], suffix: list[int]) -> None:
    """It counts where `tokenizer_config.json` has no list of added tokens, as in transformers."""
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"eos_token": {"content": "<s>", "lstrip": False}}))
    tokenizer = words(tmp_path, None, add_eos_token=True, **config)
    assert (tokenizer.prefix.tolist(), tokenizer.suffix.tolist()) == ([], suffix)
    assert AutoTokenizer.from_pretrained(tmp_path).eos_token_id == suffix[0]
