"""A tokenizer.json for BERT's relatives that have a `vocab.txt` only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers.normalizers import BertNormalizer
from tokenizers.processors import TemplateProcessing

from ..errors import CheckpointError

_ARCHITECTURES = ("", "bert", "distilbert", "electra", "mobilebert", "convbert", "layoutlm", "nomic_bert", "funnel")
_CLASSES = tuple(
    f"{name}{kind}"
    for name in ("Bert", "DistilBert", "Electra", "MobileBert", "ConvBert", "LayoutLM", "Funnel")
    for kind in ("Tokenizer", "TokenizerFast")
)


def is_wordpiece(folder: Path) -> bool:
    """Whether the folder holds a `vocab.txt` of BERT's kind; Japanese BERT's words are cut by a dictionary."""
    if not (folder / "vocab.txt").exists():
        return False
    config = _read_config(folder / "tokenizer_config.json")
    kind = config.get("tokenizer_class")
    if kind is None:
        return _read_config(folder / "config.json").get("model_type", "") in _ARCHITECTURES
    return kind in _CLASSES and config.get("word_tokenizer_type", "basic") == "basic"


def build_wordpiece(folder: Path) -> dict[str, Any]:
    """BERT's tokenizer from `vocab.txt` and the options in `tokenizer_config.json`, as a tokenizer.json.

    Raises:
        CheckpointError: the vocabulary lacks a special token; the message names it.
    """
    path = folder / "vocab.txt"
    config = _read_config(folder / "tokenizer_config.json")
    vocabulary = {token: index for index, token in enumerate(_read_lines(path))}
    names = ("unk_token", "cls_token", "sep_token", "pad_token", "mask_token")
    defaults = ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")
    unknown, first, last, *others = (_content(config.get(n), d) for n, d in zip(names, defaults, strict=True))
    for token in (unknown, first, last):
        if token not in vocabulary:
            raise CheckpointError(f"{path} lacks the special token {token!r}")
    specials = dict.fromkeys(token for token in (unknown, first, last, *others) if token in vocabulary)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_special(vocabulary[token], token) for token in sorted(specials, key=vocabulary.__getitem__)],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": bool(config.get("tokenize_chinese_chars", True)),
            "strip_accents": config.get("strip_accents"),
            "lowercase": bool(config.get("do_lower_case", True)),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "BertProcessing",
            "sep": [last, vocabulary[last]],
            "cls": [first, vocabulary[first]],
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": unknown,
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    }


def _read_config(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} holds a {type(config).__name__}, expected an object")
    return config


def _read_tokenizer_config(folder: Path) -> dict[str, Any]:
    """`tokenizer_config.json`; where it lists no added tokens, `special_tokens_map.json` says which are special."""
    config = _read_config(folder / "tokenizer_config.json")
    return config if "added_tokens_decoder" in config else config | _read_config(folder / "special_tokens_map.json")


def _read_lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is not UTF-8: {error}") from error
    return text.removesuffix("\n").split("\n")  # not splitlines: tokens may be other line separators


def _content(token: Any, default: str) -> str:
    """A special token is a string or an object with its text in `content`."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else default


def _special(index: int, content: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": index, "content": content, **flags, "special": True}


def follow_config(raw: tokenizers.Tokenizer, folder: Path, *, normalization: bool) -> None:
    """Let the options of `tokenizer_config.json` outweigh the tokenizer.json's own.

    `add_bos_token` and `add_eos_token` put these tokens around a text where the tokenizer.json does not: models that
    pool the last token were trained with it. For BERT's tokenizers the options of the `normalization` count, if asked
    for, as in transformers. Does nothing where there is no `tokenizer_config.json`.
    """
    path = folder / "tokenizer_config.json"
    config = _read_tokenizer_config(folder)
    _force_specials(raw, config, path)
    bert = config.get("tokenizer_class") in _CLASSES and isinstance(raw.normalizer, BertNormalizer)
    if normalization and bert:
        _follow_bert(raw, config, path)


def _force_specials(raw: tokenizers.Tokenizer, config: dict[str, Any], path: Path) -> None:
    tokens = {name: _content(config.get(f"{name}_token"), "") for name in ("bos", "eos")}
    forced = [name for name in tokens if config.get(f"add_{name}_token") is True]
    for name in forced:
        if not tokens[name]:
            raise CheckpointError(f"{path}: 'add_{name}_token' is true, but there is no '{name}_token'")
        if raw.token_to_id(tokens[name]) is None:
            raise CheckpointError(
                f"{path}: 'add_{name}_token' is true, but '{name}_token' is {tokens[name]!r}, which the tokenizer does "
                "not know"
            )
    around, bare = (raw.encode("a", add_special_tokens=special).tokens for special in (True, False))
    first = next((i for i in range(len(around)) if around[i : i + len(bare)] == bare), 0)
    before, after = around[:first], around[first + len(bare) :]
    lacking = [name for name in forced if tokens[name] not in (before if name == "bos" else after)]
    if not lacking:
        return
    before = [tokens["bos"], *before] if "bos" in lacking else before
    after = [*after, tokens["eos"]] if "eos" in lacking else after
    raw.post_processor = TemplateProcessing(
        single=[*before, "$A", *after],
        special_tokens=[(token, raw.token_to_id(token)) for token in dict.fromkeys((*before, *after))],
    )


def _follow_bert(raw: tokenizers.Tokenizer, config: dict[str, Any], path: Path) -> None:
    accents = config.get("strip_accents")
    if accents is not None and not isinstance(accents, bool):
        raise CheckpointError(f"{path}: 'strip_accents' is {accents!r}, expected true, false or null")
    raw.normalizer = BertNormalizer(
        clean_text=bool(json.loads(raw.normalizer.__getstate__()).get("clean_text", True)),
        handle_chinese_chars=bool(config.get("tokenize_chinese_chars", True)),
        strip_accents=accents,
        lowercase=bool(config.get("do_lower_case", True)),
    )
