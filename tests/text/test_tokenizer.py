"""The tokenizer against transformers and against the library's untouched pipeline."""

from __future__ import annotations

import argparse
import json
import pickle
import pydoc_data.topics
import shutil
import threading
import typing
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from longspan.errors import CheckpointError, CheckpointNotFoundError
from longspan.text import tokenizer as module
from longspan.text.tokenizer import Tokenizer, Tokens

ODD = ["", " ", "\n\n", "\0", "a\0b", "x" * 500, "Ünïcödé ΟΔΟΣ", "👩\u200d💻 🇩🇪", "中文 [SEP] [MASK]x", "e\u0301\u0323"]


def real_texts() -> list[str]:
    docs = [argparse.__doc__, argparse.ArgumentParser.__doc__, typing.__doc__, str.split.__doc__, dict.update.__doc__]
    return [*pydoc_data.topics.topics.values(), *(doc for doc in docs if doc), *ODD]


def as_lists(tokens: Tokens) -> tuple[list[int], list[tuple[int, int]]]:
    assert tokens.starts is not None
    assert tokens.ends is not None
    return tokens.ids.tolist(), list(zip(tokens.starts.tolist(), tokens.ends.tolist(), strict=True))


def untouched(folder: Path) -> tokenizers.Tokenizer:
    raw = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    raw.no_truncation()
    raw.no_padding()
    return raw


def test_specials(minilm: Path) -> None:
    tokenizer = Tokenizer.load(minilm)
    assert tokenizer.prefix.tolist() == [101]
    assert tokenizer.suffix.tolist() == [102]
    assert tokenizer.prefix.dtype == np.int32
    assert tokenizer.raw.truncation is None
    assert tokenizer.raw.padding is None


def test_equals_transformers(minilm: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(minilm)
    tokenizer = Tokenizer.load(minilm)
    texts = real_texts()
    expected = theirs(texts, truncation=False)["input_ids"]
    for tokens, ids in zip(tokenizer.encode(texts, offsets=False), expected, strict=True):
        assert tokens.starts is None
        assert tokens.ids.dtype == np.int32
        assert [*tokenizer.prefix, *tokens.ids, *tokenizer.suffix] == ids


def test_equals_the_library(minilm: Path) -> None:
    raw = untouched(minilm)
    texts = real_texts()
    for text, tokens in zip(texts, Tokenizer.load(minilm).encode(texts, offsets=True), strict=True):
        encoding = raw.encode(text, add_special_tokens=False)
        assert as_lists(tokens) == (encoding.ids, encoding.offsets)


def test_no_texts(minilm: Path) -> None:
    tokenizer = Tokenizer.load(minilm)
    assert tokenizer.encode([], offsets=True) == []
    empty = tokenizer.encode([""], offsets=True)[0]
    assert as_lists(empty) == ([], [])


def test_offsets_are_code_points(minilm: Path) -> None:
    text = "😀 naïve 中文 ΟΔΟΣ end"
    tokens = Tokenizer.load(minilm).encode([text], offsets=True)[0]
    _, offsets = as_lists(tokens)
    start, end = offsets[-1]
    assert text[start:end] == "end"
    assert [text[start:end] for start, end in offsets][1] == "naïve"


def test_huge_texts(minilm: Path) -> None:
    tokenizer = Tokenizer.load(minilm)
    prose = "\n".join(pydoc_data.topics.topics.values())
    texts = [prose, "short", "x" * 200_000, "中文，" * 70_000, "\n" * 200_000, "", prose.replace(" ", "\u00a0")]
    raw = untouched(minilm)
    plain = tokenizer.encode(texts, offsets=False)
    for text, tokens, ids in zip(texts, tokenizer.encode(texts, offsets=True), plain, strict=True):
        encoding = raw.encode(text, add_special_tokens=False)
        assert as_lists(tokens) == (encoding.ids, encoding.offsets)
        assert ids.ids.tolist() == encoding.ids
        assert ids.starts is None


PARTS = [
    "word ",
    "zwei\n",
    "trois\r\n",
    "中文，",
    "слово ",
    "😀",
    "[SEP]",
    " [MASK] ",
    "e\u0301",
    "\u00a0",
    "한국어 ",
    "x" * 101,
    " ",
]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from(PARTS)).map("".join), max_size=6))
def test_small_pieces_and_slices(minilm: Path, texts: list[str]) -> None:
    raw = untouched(minilm)
    tokenizer = Tokenizer.load(minilm)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_LONGEST_WHOLE", 10)
        patch.setattr(module, "_PIECE", 5)
        patch.setattr(module, "_SLICE", 20)
        encoded = tokenizer.encode(texts, offsets=True)
    for text, tokens in zip(texts, encoded, strict=True):
        encoding = raw.encode(text, add_special_tokens=False)
        assert as_lists(tokens) == (encoding.ids, encoding.offsets)


def test_lower_case_keeps_offsets(minilm: Path, tmp_path: Path) -> None:
    spec = json.loads((minilm / "tokenizer.json").read_text())
    spec["normalizer"]["lowercase"] = False
    spec["normalizer"]["strip_accents"] = False
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    text = "İstanbul Hello WORLD [SEP]"
    cased, lowered = (Tokenizer.load(tmp_path, lower_case=lower) for lower in (False, True))
    tokens = lowered.encode([text], offsets=True)[0]
    ids, offsets = as_lists(tokens)
    assert ids[-3:] == [*cased.encode(["hello world"], offsets=False)[0].ids, 102]
    assert ids != cased.encode([text], offsets=False)[0].ids.tolist()
    assert [text[start:end] for start, end in offsets[-3:]] == ["Hello", "WORLD", "[SEP]"]


@pytest.mark.parametrize("lower", [True, False])
def test_vocabulary_file(minilm: Path, tmp_path: Path, lower: bool) -> None:
    for name in ("vocab.txt", "config.json"):
        shutil.copy(minilm / name, tmp_path)
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": lower, "cls_token": {"content": "[CLS]"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    texts = real_texts()
    reference = tokenizers.BertWordPieceTokenizer(str(tmp_path / "vocab.txt"), lowercase=lower)
    tokenizer = Tokenizer.load(tmp_path)
    assert (tokenizer.prefix.tolist(), tokenizer.suffix.tolist()) == ([101], [102])
    for text, tokens in zip(texts, tokenizer.encode(texts, offsets=True), strict=True):
        encoding = reference.encode(text, add_special_tokens=False)
        assert as_lists(tokens) == (encoding.ids, encoding.offsets)
    if lower:
        assert tokenizer.raw.get_vocab_size() == Tokenizer.load(minilm).raw.get_vocab_size()


def test_vocabulary_of_another_kind(minilm: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match=r"no tokenizer\.json"):
        Tokenizer.load(tmp_path)
    shutil.copy(minilm / "vocab.txt", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertJapaneseTokenizer"}')
    with pytest.raises(CheckpointError, match="BertJapaneseTokenizer"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"sep_token": "</s>"}')
    with pytest.raises(CheckpointError, match=r"vocab\.txt lacks the special token '</s>'"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json is not JSON"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": "1.0"}', '{"model": {"type": "Nonsense"}}'])
@pytest.mark.parametrize("lower", [True, False])
def test_corrupt_file(tmp_path: Path, content: str, lower: bool) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is not a usable tokenizer"):
        Tokenizer.load(tmp_path, lower_case=lower)


def test_pickle_and_threads(minilm: Path) -> None:
    tokenizer = pickle.loads(pickle.dumps(Tokenizer.load(minilm)))
    text = "\n".join(pydoc_data.topics.topics.values())[:150_000]
    expected = untouched(minilm).encode(text, add_special_tokens=False).ids
    found: list[list[int]] = []
    threads = [
        threading.Thread(target=lambda: found.append(tokenizer.encode([text], offsets=False)[0].ids.tolist()))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


@pytest.mark.parametrize("offsets", [False, True])
def test_one_by_one_is_the_same(minilm: Path, offsets: bool) -> None:
    tokenizer, serial = (Tokenizer.load(minilm, serial=serial) for serial in (False, True))
    assert (tokenizer.serial, serial.serial) == (False, True)
    texts = [*real_texts(), "中文，word " * 20_000, "[SEP]" * 30_000]
    for ours, expected in zip(
        pickle.loads(pickle.dumps(serial)).encode(texts, offsets=offsets),
        tokenizer.encode(texts, offsets=offsets),
        strict=True,
    ):
        assert ours.ids.tolist() == expected.ids.tolist()
        if offsets:
            assert as_lists(ours) == as_lists(expected)
        else:
            assert ours.starts is ours.ends is None


def test_serial_outlasts_pickling(minilm: Path) -> None:
    for serial in (False, True):
        assert pickle.loads(pickle.dumps(Tokenizer.load(minilm, serial=serial))).serial is serial


@pytest.mark.parametrize(
    "options",
    [{"do_lower_case": False}, {"strip_accents": False}, {"tokenize_chinese_chars": False}, {}],
    ids=lambda options: next(iter(options), "as it is"),
)
def test_tokenizer_config_outweighs_tokenizer_json(minilm: Path, tmp_path: Path, options: dict[str, bool]) -> None:
    for name in ("tokenizer.json", "vocab.txt", "config.json", "special_tokens_map.json"):
        shutil.copy(minilm / name, tmp_path)
    config = json.loads((minilm / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, **options}))
    text = "Hello Wörld, 你好 NAÏVE café"
    expected = AutoTokenizer.from_pretrained(tmp_path)(text, add_special_tokens=False)["input_ids"]
    (found,) = Tokenizer.load(tmp_path).encode([text], offsets=False)
    assert found.ids.tolist() == expected


@pytest.mark.parametrize("limit", [1, 7, 100])
@pytest.mark.parametrize("offsets", [False, True])
def test_the_start_of_a_text_is_the_start_of_its_tokens(minilm: Path, limit: int, offsets: bool) -> None:
    tokenizer = Tokenizer.load(minilm)
    prose = " ".join(pydoc_data.topics.topics.values())[:100_000]
    texts = [
        prose,
        "",
        "short",
        "x" * 50_000,
        " " * 50_000,
        "wörd\u0301 😀 e u " * 5_000,
        "[SEP] a" * 3_000,
        " " * 9_000 + prose,
    ]
    for text, start, whole in zip(
        texts,
        tokenizer.encode_start(texts, limit, offsets=offsets),
        tokenizer.encode(texts, offsets=offsets),
        strict=True,
    ):
        count = len(start.ids)
        assert count == len(whole.ids) or count >= limit, text[:20]
        assert start.ids.tolist() == whole.ids[:count].tolist()
        if offsets:
            assert start.starts is not None
            assert whole.starts is not None
            assert start.starts.tolist() == whole.starts[:count].tolist()


def test_the_start_of_a_huge_text_is_quick_to_find(minilm: Path) -> None:
    """By work, not by the clock: nearly all of the text is never given to the library."""
    tokenizer = Tokenizer.load(minilm)
    (tokens,) = tokenizer.encode_start(["One more sentence of prose, and another. " * 250_000], 256, offsets=False)
    assert 256 <= len(tokens.ids) < 5_000
