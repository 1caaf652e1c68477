r"""Where a huge text may be cut so that its pieces give the same tokens as the whole.

The tokenizers library needs nearly a kilobyte per token of one text, and works on one text with one thread. Cutting
removes both limits, but only where nothing that the library does looks across the cut. The rule, for every supported
tokenizer, is one kind of place p:

    text[p - 2] is a letter or digit, text[p - 1] is a *solid* letter or digit, and text[p] is a *break*.

A break is a space, tab, line end or one of two CJK stops. A solid character is one whose normal forms consist of
letters and decimal digits, in Unicode 3.2 as well as today, so that all Unicode versions at work agree on it. Why the
stages of the library do not look across such a place:

*Added tokens.* They are searched first in the raw text and then in the normalised. None may contain a break behind
    a non-space, so no occurrence crosses p. Taking in spaces to the left stops at the solid character; taking
    in spaces to the right would cross p only for a token that ends in a letter or digit; `single_word` looks at one
    neighbour, and a break is none of a word's characters. Tokens that break these conditions refuse the cutter.
*Normalisers.* A break is a starter that composes with nothing before it, and neither it nor the solid character is
    part of a longer grapheme; that covers the normal forms, the per-character ones and `Precompiled`, which works
    by grapheme. Replacing runs of whitespace sees whole runs, because a run begins at the break. Stripping on the
    right finds no space at the end of a left piece. What adds or strips on the left refuses the cutter.
*Pre-tokenizers.* Those that remove whitespace split there. `Metaspace` starts a word at each space, and prefixes a
    piece only if it does not start with one already. In the byte-level regexes a match with a letter or digit
    followed by a break ends between them: what follows letters or digits in any alternative is more of these or an
    apostrophe, and line ends follow symbols only. No alternative looks behind, and `\s+(?!\S)` looks ahead behind a
    space only, which text[p - 1] is not; so matching up to p sees nothing past p, and starts anew at p.
*Models* see one word at a time. *Post-processors* trim offsets per token, except that the first token of a piece keeps
    its space if `trim_offsets` and `add_prefix_space` are both on: then no cutter.

Not supported, because no split is provable: tokenizers whose words span spaces (Llama 2, Gemma: the text is one BPE
word), unknown regexes, and texts without such places. These are tokenised whole.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Part = Mapping[str, Any]
"""One component of a tokenizer.json."""

_SPACES = " \t\n\r"
_STOPS = "，。"  # the CJK comma and full stop
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_PUNCTUATION_AND_SPACES = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_REGEXES = frozenset(
    {
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",  # GPT-2
        _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _PUNCTUATION_AND_SPACES,  # Llama 3
        _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _PUNCTUATION_AND_SPACES,  # Qwen 2 and 3
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*"
        r"|\s*[\r\n]|\s+(?!\S)|\s+",  # cl100k
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + _CONTRACTIONS + "?"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + _CONTRACTIONS + "?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",  # o200k
    }
)
_REMOVE_SPACES = ("BertPreTokenizer", "Whitespace", "WhitespaceSplit")
_WITHIN_A_WORD = ("ByteLevel", "Metaspace", "Digits", "Punctuation", "Split", *_REMOVE_SPACES)
_PER_CHARACTER = ("BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "StripAccents")
_POST_PROCESSORS = ("BertProcessing", "ByteLevel", "RobertaProcessing", "TemplateProcessing")


@dataclass(frozen=True)
class Cutter:
    """Cuts texts for one tokenizer.

    Attributes:
        breaks: the characters before which this tokenizer's texts may be cut.
        normalize: the tokenizer's normaliser, for single characters.
        precompiled: whether it has a `Precompiled` part. Where this removes the first character of a text, the
            library loses count, and all offsets of that text are off by one. Pieces would be right, and so differ:
            texts with characters that are removed are not cut.
    """

    breaks: str
    normalize: Callable[[str], str]
    precompiled: bool

    def cuts(self, text: str, size: int) -> list[int]:
        """Ascending places 0 < p < len(text); pieces have `size` (>= 2) code points, or more where no place is near.

        Linear in the length of the text.
        """
        if self.precompiled and any(map(self._vanishes, set(text))):
            return []
        place = re.compile(rf"[^\W_]{{2}}[{re.escape(self.breaks)}]")
        found: list[int] = []
        position = size - 2
        while match := place.search(text, position):
            cut = match.end() - 1
            if self._solid(text[cut - 1]) and _is_word(text[cut - 2]):
                found.append(cut)
                position = cut + size - 2
            else:
                position = match.start() + 1
        return found

    def _vanishes(self, char: str) -> bool:
        return self.normalize(f"a{char}a") == "aa" or not (char.isspace() or self.normalize(char))

    def _solid(self, char: str) -> bool:
        normal = self.normalize(char).strip()  # BertNormalizer puts spaces around ideographs
        forms = char + unicodedata.normalize("NFKD", char) + normal
        return bool(normal) and all(map(_is_word, forms))


def make_cutter(spec: Mapping[str, Any], normalize: Callable[[str], str]) -> Cutter | None:
    """The cutter of a tokenizer, or None where no place is provably safe.

    Args:
        spec: the parts `normalizer`, `pre_tokenizer`, `post_processor` and `added_tokens` of a tokenizer.json, and
            the `dropout` of its `model`.
        normalize: what the tokenizer's normaliser makes of a string.
    """
    normalizers = list(_flatten(spec.get("normalizer"), "normalizers"))
    pre_tokenizers = list(_flatten(spec.get("pre_tokenizer"), "pretokenizers"))
    post_processors = list(_flatten(spec.get("post_processor"), "processors"))
    if not all(map(_normalizer_is_local, normalizers)) or not all(map(_post_processor_is_local, post_processors)):
        return None
    if (spec.get("model") or {}).get("dropout"):
        return None
    breaks = "".join(
        char for char in _breaks(pre_tokenizers) if _still_breaks(char, normalize(f"a{char}a"), pre_tokenizers)
    )
    spaced = any(part["type"] == "BertNormalizer" for part in normalizers)
    if not breaks or not all(_token_is_local(token, breaks, spaced, normalize) for token in spec["added_tokens"]):
        return None
    return Cutter(breaks, normalize, any(part["type"] == "Precompiled" for part in normalizers))


def _is_word(char: str) -> bool:
    return all(
        category[0] == "L" or category == "Nd"
        for category in (unicodedata.category(char), unicodedata.ucd_3_2_0.category(char))
    )


def _flatten(part: Part | None, inner: str) -> Iterator[Part]:
    if part is None:
        return
    if part["type"] == "Sequence":
        for child in part[inner]:
            yield from _flatten(child, inner)
    else:
        yield part


def _normalizer_is_local(part: Part) -> bool:
    if part["type"] == "Strip":
        return not part["strip_left"]
    if part["type"] != "Replace":
        return part["type"] in _PER_CHARACTER
    pattern = part["pattern"]
    if "Regex" in pattern:
        return pattern["Regex"] in (" {2,}", r"\s+") and part["content"] in (" ", "▁")
    # A pattern of ASCII symbols holds neither the solid character nor the break.
    return all(
        char.isascii() and char.isprintable() and not char.isalnum() and char != " " for char in pattern["String"]
    )


def _post_processor_is_local(part: Part) -> bool:
    both = part.get("trim_offsets", False) and part.get("add_prefix_space", False)
    return part["type"] in _POST_PROCESSORS and not both


def _breaks(pre_tokenizers: Iterable[Part]) -> str:
    """Candidates, from the first pre-tokenizer that splits at breaks; "" if none does."""
    parts = list(pre_tokenizers)
    while parts and parts[0]["type"] == "Digits":  # splits by character class, so it cannot hide a break
        del parts[0]
    if not parts or any(part["type"] not in _WITHIN_A_WORD for part in parts):
        return ""
    # These give the first word of a piece a space, unless it starts with one.
    prefixed = any(part.get("add_prefix_space") or part.get("prepend_scheme") == "first" for part in parts)
    first = parts[0]
    if first["type"] == "Metaspace":
        return _SPACES if first.get("split", True) and not prefixed else " " if first.get("split", True) else ""
    if first["type"] not in _REMOVE_SPACES and not _is_known_regex(first):
        return ""
    return " " if prefixed else _SPACES if first["type"] == "WhitespaceSplit" else _SPACES + _STOPS


def _is_known_regex(part: Part) -> bool:
    if part["type"] == "ByteLevel":
        return bool(part.get("use_regex", True))
    if part["type"] != "Split" or part["pattern"].get("Regex") not in _REGEXES:
        return False
    return (part["behavior"], part["invert"]) in (("Isolated", False), ("Removed", True))


def _still_breaks(char: str, normal: str, pre_tokenizers: Iterable[Part]) -> bool:
    """Whether the normalised form of "a" + char + "a" has a break in the middle."""
    if len(normal) != 3 or normal[0] != "a" or normal[2] != "a":
        return False
    first = next(part["type"] for part in pre_tokenizers if part["type"] != "Digits")
    if first == "Metaspace":
        return normal[1] == " "
    return normal[1] in (_SPACES if char in _SPACES else _STOPS + ",")


def _token_is_local(token: Part, breaks: str, spaced: bool, normalize: Callable[[str], str]) -> bool:
    """Whether an added token neither crosses nor sees across a cut; `spaced`: normalising may add spaces."""
    normal = normalize(token["content"])
    if spaced and token["normalized"] and (token["lstrip"] or any(map(str.isspace, normal))):
        return False
    marks = breaks + "".join(normalize(f"a{char}a")[1] for char in breaks)
    for form in (token["content"], normal):
        crosses = any(char in marks and not form[i - 1].isspace() for i, char in enumerate(form) if i > 0)
        sees_left = token["single_word"] and (form[:1].isspace() or form[:1] in marks)
        sees_right = token["rstrip"] and form[-1:].isalnum()
        if crosses or sees_left or sees_right:
            return False
    return True
