"""Cutting a text must not change a single token or offset, for every tokenizer that gets a cutter."""

from __future__ import annotations

import json
import pydoc_data.topics
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

from longspan.text.pieces import Cutter, make_cutter

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = LLAMA3.replace("{1,3}", "")
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

SPACED = """the Unicode don't we'LL x1 2024 12345678 a an of naïve nai\u0308ve İstanbul ΟΔΟΣ Σ ἀρχῇ ﬁne ﷺ ﹰ ① ½ x²
    e\u0301\u0323 \u0301 \u0345 한국어 \u1112\u1161\u11ab 中文分词 漢 日本語です か\u3099 ｶﾞ قراءة أهلا שלום
    שָׁלוֹם हिन्दी क्षत्रिय ไทยำ አማርኛ 😀 👩\u200d💻 🇩🇪 👍🏽 <mask> [SEP] [MASK] <s> Ġ ▁ ▁a"""
BARRED = " | | |  |     |\n|\n\n|\r\n|\r|\t| \n |\n  |\u00a0|\u2028|\u3000|\u0085"
BARRED += "|\u200b|\u200d|\ufeff|，|。|.|,|'|''|``|-|/|!?\n|.\r\n\r\n| \u0301||"
WORDS = (*SPACED.split(), "<two words>", "x" * 120, "\x00", "\x1f")
GAPS = tuple(BARRED.split("|"))
texts = st.lists(
    st.one_of(st.sampled_from(WORDS), st.sampled_from(GAPS), st.text(alphabet="ab ", max_size=12), st.text(max_size=3))
).map("".join)


def corpus() -> list[str]:
    return [*list(pydoc_data.topics.topics.values())[:12], " ".join(WORDS), "".join(WORDS), "  ".join(GAPS)]


def charsmap(rules: dict[str, str]) -> bytes:
    """A `Precompiled` normaliser's map: a double-array trie with one block of 256 cells per node."""
    strings, values = b"", {}
    for source, target in rules.items():
        values[source.encode()] = len(strings)
        strings += target.encode() + b"\0"
    nodes = sorted({key[:length] for key in values for length in range(len(key) + 1)})
    block = {node: 256 * i for i, node in enumerate(nodes, 1)}
    cells = [0] * (256 * (len(nodes) + 1))
    cells[0] = block[b""] << 10
    for node in nodes[1:]:
        place = block[node[:-1]] ^ node[-1]
        cells[place] = (place ^ block[node]) << 10 | (node in values) << 8 | node[-1]
    for key, value in values.items():
        cells[block[key]] = value | 1 << 31
    return struct.pack("<I", 4 * len(cells)) + struct.pack(f"<{len(cells)}I", *cells) + strings


CHARSMAP = dict.fromkeys("\n\t\r\u00a0\u3000\u200b", " ")
CHARSMAP |= {"ﬁ": "fi", "①": "1", "½": "1/2", "e\u0301": "é", "ﷺ": "صلى الله", "，": ",", "e": "e", "\u0085": ""}


def byte_level(
    split: Any, normalizer: Any = None, *, post: Any = None, added: tuple[AddedToken, ...] = ()
) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        corpus(), trainers.BpeTrainer(vocab_size=600, show_progress=False, initial_alphabet=alphabet)
    )
    tokenizer.post_processor = post or processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens(
        [AddedToken("<s>"), AddedToken("<mask>", lstrip=True), AddedToken("[SEP]", rstrip=True)]
    )
    tokenizer.add_tokens(list(added))
    return tokenizer


def split_then_bytes(pattern: str) -> Any:
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )


def unigram(normalizer: Any, split: Any) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = split
    trainer = trainers.UnigramTrainer(vocab_size=700, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens(
        [AddedToken("<s>"), AddedToken("<mask>", lstrip=True), AddedToken("[SEP]", rstrip=True)]
    )
    return tokenizer


def word_piece(normalizer: Any, split: Any, *, added: tuple[AddedToken, ...] = ()) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = split
    trainer = trainers.WordPieceTrainer(vocab_size=600, special_tokens=["[UNK]", "[SEP]"], show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens([AddedToken("[MASK]", lstrip=True, rstrip=True)])
    tokenizer.add_tokens(list(added))
    return tokenizer


def sequence(*parts: Any) -> Any:
    return normalizers.Sequence(list(parts))


def spm(*, strip: bool) -> Any:
    parts = [normalizers.Precompiled(charsmap(CHARSMAP))]
    if strip:
        return sequence(*parts, normalizers.Strip(left=False), normalizers.Replace(Regex(" {2,}"), "▁"))
    return sequence(
        normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), *parts, normalizers.Replace(Regex(" {2,}"), " ")
    )


def metaspace(scheme: str) -> Any:
    return pre_tokenizers.Metaspace(prepend_scheme=scheme)


SPACES = tuple(AddedToken(" " * count, normalized=True) for count in range(2, 9))
LOCAL: dict[str, Callable[[], tokenizers.Tokenizer]] = {
    "bert uncased": lambda: word_piece(normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()),
    "bert cased": lambda: word_piece(normalizers.BertNormalizer(lowercase=False), pre_tokenizers.BertPreTokenizer()),
    "bert, more tokens": lambda: word_piece(
        sequence(normalizers.Lowercase(), normalizers.BertNormalizer(clean_text=False, strip_accents=True)),
        pre_tokenizers.BertPreTokenizer(),
        added=(AddedToken("the", single_word=True, normalized=True), AddedToken("x1", lstrip=True, normalized=False)),
    ),
    "whitespace": lambda: word_piece(normalizers.NFKC(), pre_tokenizers.Whitespace()),
    "whitespace split": lambda: word_piece(
        sequence(normalizers.NFD(), normalizers.StripAccents()), pre_tokenizers.WhitespaceSplit()
    ),
    "nmt": lambda: word_piece(sequence(normalizers.Nmt(), normalizers.NFKD()), pre_tokenizers.WhitespaceSplit()),
    "gpt2": lambda: byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "gpt2 with prefix": lambda: byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "roberta": lambda: byte_level(
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        post=processors.RobertaProcessing(("</s>", 1), ("<s>", 0), trim_offsets=True, add_prefix_space=False),
    ),
    "gpt-neox": lambda: byte_level(pre_tokenizers.ByteLevel(False), normalizers.NFC(), added=SPACES),
    "digits": lambda: byte_level(
        pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)])
    ),
    "nfd bytes": lambda: byte_level(split_then_bytes(LLAMA3), sequence(normalizers.NFD(), normalizers.Lowercase())),
    "gpt2 split": lambda: byte_level(split_then_bytes(GPT2), normalizers.NFKC()),
    "llama3": lambda: byte_level(split_then_bytes(LLAMA3)),
    "qwen": lambda: byte_level(split_then_bytes(QWEN), normalizers.NFC()),
    "cl100k": lambda: byte_level(split_then_bytes(CL100K)),
    "o200k": lambda: byte_level(split_then_bytes(O200K)),
    "metaspace always": lambda: unigram(spm(strip=True), metaspace("always")),
    "metaspace first": lambda: unigram(spm(strip=False), metaspace("first")),
    "metaspace never": lambda: unigram(spm(strip=True), metaspace("never")),
    "xlm-roberta": lambda: unigram(
        spm(strip=False), pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace("always")])
    ),
    "words, first": lambda: unigram(
        spm(strip=False), pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace("first")])
    ),
}
_built: dict[str, tokenizers.Tokenizer] = {}


def build(name: str) -> tokenizers.Tokenizer:
    if name not in _built:
        _built[name] = LOCAL[name]()
    return _built[name]


def cutter_of(tokenizer: tokenizers.Tokenizer) -> Cutter | None:
    normalizer = tokenizer.normalizer
    return make_cutter(json.loads(tokenizer.to_str()), normalizer.normalize_str if normalizer else str)


Encoded = tuple[list[int], list[tuple[int, int]]]


def encode(tokenizer: tokenizers.Tokenizer, text: str) -> Encoded:
    encoding = tokenizer.encode(text, add_special_tokens=False)
    return encoding.ids, encoding.offsets


def encode_pieces(tokenizer: tokenizers.Tokenizer, text: str, cuts: list[int]) -> Encoded:
    ids: list[int] = []
    offsets: list[tuple[int, int]] = []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        piece_ids, piece_offsets = encode(tokenizer, text[start:end])
        ids += piece_ids
        offsets += [(first + start, last + start) for first, last in piece_offsets]
    return ids, offsets


@pytest.mark.parametrize("name", LOCAL)
@settings(max_examples=120, deadline=None)
@given(text=texts, size=st.integers(2, 12))
@example(text="ab \u0301cd\n\u0301ef，\u0301gh", size=2)
@example(text="the  the [MASK] the\n[MASK]\nx1 x1，x1 the<mask>\r\nthe <mask> the", size=2)
@example(text="中文 [MASK]  中文，中文。中文\n\n中文", size=2)
@example(text="no ab   \n\n  ab\n\nab \n ab\r\n\r\nab\tab \tab", size=2)
@example(text="\u0085ab cd <s>\u0085ab cd", size=2)
@example(text="ab\u200d cd\u00a0 ef\u2028gh ij    ", size=2)
def test_pieces_equal_the_whole(name: str, text: str, size: int) -> None:
    tokenizer = build(name)
    cutter = cutter_of(tokenizer)
    assert cutter is not None
    cuts = cutter.cuts(text, size)
    assert cuts == sorted(set(cuts))
    assert all(size <= end - start for start, end in zip([0, *cuts], cuts, strict=False))
    assert encode_pieces(tokenizer, text, cuts) == encode(tokenizer, text)


@pytest.mark.parametrize("name", LOCAL)
def test_real_text_is_cut(name: str) -> None:
    tokenizer = build(name)
    cutter = cutter_of(tokenizer)
    assert cutter is not None
    for text in list(pydoc_data.topics.topics.values())[12:40]:
        cuts = cutter.cuts(text, 200)
        assert len(cuts) >= len(text) // 260
        assert encode_pieces(tokenizer, text, cuts) == encode(tokenizer, text)


@settings(max_examples=300, deadline=None)
@given(text=texts, size=st.integers(2, 12))
def test_minilm(minilm: Path, text: str, size: int) -> None:
    if "minilm" not in _built:
        tokenizer = tokenizers.Tokenizer.from_file(str(minilm / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        _built["minilm"] = tokenizer
    cutter = cutter_of(_built["minilm"])
    assert cutter is not None
    assert encode_pieces(_built["minilm"], text, cutter.cuts(text, size)) == encode(_built["minilm"], text)


def test_breaks() -> None:
    def breaks(name: str) -> str:
        cutter = cutter_of(build(name))
        assert cutter is not None
        return cutter.breaks

    assert breaks("bert uncased") == breaks("llama3") == breaks("gpt2") == " \t\n\r，。"
    assert breaks("whitespace split") == breaks("metaspace always") == breaks("xlm-roberta") == " \t\n\r"
    assert breaks("gpt2 with prefix") == breaks("metaspace first") == breaks("words, first") == " "


def test_languages_are_cut() -> None:
    languages = {
        "ru": "Слово за словом идёт рассказ. ",
        "ar": "هذا نص طويل باللغة العربية، ثم نقطة. ",
        "hi": "यह एक लंबा पाठ है और बहुत सारे शब्द। ",
        "ko": "이것은 아주 긴 한국어 글입니다. ",
        "zh": "这是一个很长的中文句子，没有空格。",
        "ja": "これはとても長い日本語の文章です。空白はありません。",
    }
    for name in ("bert uncased", "llama3"):
        cutter = cutter_of(build(name))
        assert cutter is not None
        for language, text in languages.items():
            assert len(cutter.cuts(text * 100, 100)) >= 0.8 * len(text), language


def test_without_a_place() -> None:
    cutter = cutter_of(build("bert uncased"))
    assert cutter is not None
    for text in ("", " ", "ab", "ab ", "x" * 200_000, "\n" * 200_000, ". " * 100_000, "😀" * 50_000):
        assert cutter.cuts(text, 100) == []


def refuse(change: Callable[[tokenizers.Tokenizer], object], name: str = "bert uncased") -> None:
    tokenizer = tokenizers.Tokenizer.from_str(build(name).to_str())
    change(tokenizer)
    assert cutter_of(tokenizer) is None


@pytest.mark.parametrize(
    "normalizer",
    [
        normalizers.Prepend("▁"),
        normalizers.Strip(),
        normalizers.Replace(" ", "▁"),
        normalizers.Replace("a", " "),
        normalizers.Replace(Regex("b a"), "x"),
        sequence(normalizers.NFC(), sequence(normalizers.Prepend("▁"))),
    ],
)
def test_refuses_normalizers(normalizer: Any) -> None:
    refuse(lambda tokenizer: setattr(tokenizer, "normalizer", normalizer))


@pytest.mark.parametrize(
    "split",
    [
        pre_tokenizers.Metaspace(split=False),
        pre_tokenizers.Split(" ", "merged_with_previous"),
        pre_tokenizers.Split(Regex(LLAMA3), "merged_with_next"),
        pre_tokenizers.Split(Regex(r"\w+|[^\w]+"), "isolated"),
        pre_tokenizers.ByteLevel(use_regex=False),
        pre_tokenizers.UnicodeScripts(),
        pre_tokenizers.Digits(),
        pre_tokenizers.Sequence([pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel()]),
        pre_tokenizers.Sequence([]),
    ],
)
def test_refuses_pre_tokenizers(split: Any) -> None:
    refuse(lambda tokenizer: setattr(tokenizer, "pre_tokenizer", split))


@pytest.mark.parametrize(
    "token",
    [
        AddedToken("<two words>"),
        AddedToken("two，words"),
        AddedToken(" x", single_word=True),
        AddedToken("end", rstrip=True),
        AddedToken("<m>", lstrip=True, normalized=True),
        AddedToken("漢", normalized=True),
    ],
)
def test_refuses_added_tokens(token: AddedToken) -> None:
    refuse(lambda tokenizer: tokenizer.add_tokens([token]))


def test_refuses_the_rest() -> None:
    both = processors.RobertaProcessing(("</s>", 1), ("<s>", 0), trim_offsets=True, add_prefix_space=True)
    refuse(lambda tokenizer: setattr(tokenizer, "post_processor", both), "gpt2")
    refuse(lambda tokenizer: setattr(tokenizer.model, "dropout", 0.1), "gpt2")
