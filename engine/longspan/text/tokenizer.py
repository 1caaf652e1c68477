"""Texts to token ids and offsets, by the checkpoint's own tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from ..batch import Int32
from ..errors import CheckpointError
from .conversion import convert_tokenizer
from .pieces import Cutter, make_cutter
from .vocabulary import build_wordpiece, follow_config, is_wordpiece

_LONGEST_WHOLE = 1 << 16  # code points; longer texts are cut
_PIECE = 1 << 14  # code points of a piece: small enough that both memory and threads are well used
_CHARACTERS_PER_TOKEN = 8  # more than prose has, so that one attempt is mostly enough
_SLICE = 1 << 17  # code points given to the library at a time; bounds its memory to some 30 MB


@dataclass(frozen=True, slots=True)
class Tokens:
    """One text, without special tokens.

    Attributes:
        ids: [n].
        starts, ends: [n] code points of the text, half open, or None if offsets were not asked for. Tokens that share
            a code point (the bytes of an emoji) have the same range.
    """

    ids: Int32
    starts: Int32 | None
    ends: Int32 | None


class Tokenizer:
    """A checkpoint's tokenizer, without truncation and padding. Thread-safe and picklable.

    Attributes:
        raw: the tokenizers library's object. Treat it as read-only.
        prefix, suffix: [p], [s] special tokens that the checkpoint puts around one text.
        serial: whether texts are tokenised one by one in the caller's thread, not shared out among the library's own.
    """

    raw: tokenizers.Tokenizer
    prefix: Int32
    suffix: Int32
    serial: bool

    def __init__(self, raw: tokenizers.Tokenizer, name: str = "the tokenizer", *, serial: bool = False) -> None:
        """Takes over `raw`; `name` is for messages.

        Raises:
            CheckpointError: special tokens are not a fixed prefix and suffix.
        """
        raw.no_truncation()
        raw.no_padding()
        self.raw, self.serial = raw, serial
        self.prefix, self.suffix = _specials(raw, name)
        self._cutter: Cutter | None = None
        self._cutter_made = False

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        lower_case: bool = False,
        specials: bool = True,
        wrap: tuple[str, str] | None = None,
        serial: bool = False,
    ) -> Tokenizer:
        """Reads `tokenizer.json`, or for BERT's relatives `vocab.txt`; others are converted by transformers.

        Args:
            folder: the folder that holds these files.
            lower_case: lowercases texts first, in addition to what the tokenizer does (sentence-transformers'
                `do_lower_case`). Offsets stay those of the given text.
            specials: whether special tokens are put around a text.
            wrap: what stands before and behind every text, as words; texts are stripped then. Their tokens count among
                the special ones.
            serial: as the attribute.

        Raises:
            CheckpointNotFoundError: there is no such file.
            CheckpointError: a file is not usable; the message names it.
        """
        path = folder / "tokenizer.json"
        spec: Any = None
        if not path.exists() and is_wordpiece(folder):
            path, spec = folder / "vocab.txt", build_wordpiece(folder)
        elif not path.exists():
            path, converted = convert_tokenizer(folder)
            spec = json.loads(converted)
        elif lower_case:
            spec = _parse(lambda: json.loads(path.read_text(encoding="utf-8")), path)
        if lower_case and isinstance(spec, dict):
            # In the file rather than on the object: only loading normalises the added tokens.
            parts = [{"type": "Lowercase"}, *filter(None, [spec.get("normalizer")])]
            spec["normalizer"] = {"type": "Sequence", "normalizers": parts}
        if spec is None:
            raw = _parse(lambda: tokenizers.Tokenizer.from_file(str(path)), path)
        else:
            raw = _parse(lambda: tokenizers.Tokenizer.from_str(json.dumps(spec)), path)
        follow_config(raw, folder, normalization=not lower_case)
        if not specials:
            raw.post_processor = tokenizers.processors.TemplateProcessing(single="$A", special_tokens=[])
        if wrap is not None:
            _wrap(raw, wrap, str(path))
        return cls(raw, str(path), serial=serial)

    def __reduce__(self) -> tuple[Callable[[str, bool], Tokenizer], tuple[str, bool]]:
        return _from_json, (self.raw.to_str(), self.serial)

    def encode(self, texts: Sequence[str], *, offsets: bool) -> list[Tokens]:
        """Tokenises texts of any length, without special tokens; those written in a text are recognised.

        Huge texts are cut where that provably changes nothing; see `pieces`. `offsets=False` is faster.
        """
        parts: list[list[Tokens]] = [[] for _ in texts]
        for piece_slice in _slices(self._pieces(texts)):
            encoded = self._encode_slice([text for _, _, text in piece_slice], offsets)
            for (index, shift, _), tokens in zip(piece_slice, encoded, strict=True):
                parts[index].append(_shifted(tokens, shift))
        return [_joined(pieces) for pieces in parts]

    def encode_start(self, texts: Sequence[str], limit: int, *, offsets: bool) -> list[Tokens]:
        """The first tokens of each text: at least `limit` of them, or all that it has.

        A long text is cut where that provably changes nothing, so the tokens are those of the whole text; what follows
        is not looked at. Where no such place is found, the whole text is tokenised.
        """
        found: dict[int, Tokens] = {}
        pending, reach = list(range(len(texts))), _CHARACTERS_PER_TOKEN * limit
        while pending:
            starts = [self._start(texts[index], reach) for index in pending]
            for index, start, tokens in zip(pending, starts, self.encode(starts, offsets=offsets), strict=True):
                if len(tokens.ids) >= limit or len(start) == len(texts[index]):
                    found[index] = tokens
            pending, reach = [index for index in pending if index not in found], 4 * reach
        return [found[index] for index in range(len(texts))]

    def _start(self, text: str, reach: int) -> str:
        """About the first `reach` code points."""
        if len(text) <= 2 * reach:
            return text
        cuts = self._cuts(text[: 4 * reach], reach)
        return text[: cuts[0]] if cuts else text

    def _pieces(self, texts: Sequence[str]) -> Iterator[tuple[int, int, str]]:
        """(index of the text, code points before the piece, piece), in order."""
        for index, text in enumerate(texts):
            if len(text) <= _LONGEST_WHOLE:
                yield index, 0, text
                continue
            cuts = self._cuts(text, _PIECE)
            for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
                yield index, start, text[start:end]

    def _cuts(self, text: str, size: int) -> list[int]:
        if not self._cutter_made:
            normalizer = self.raw.normalizer
            self._cutter = make_cutter(_spec(self.raw), normalizer.normalize_str if normalizer else str)
            self._cutter_made = True
        return self._cutter.cuts(text, size) if self._cutter else []

    def _encode_slice(self, texts: list[str], offsets: bool) -> list[Tokens]:
        encodings = self._encodings(texts, offsets)
        # One array per slice and views of it. fromiter over flat numbers takes half the time of np.array on the pairs.
        bounds = np.cumsum([0, *map(len, encodings)]).tolist()
        total = bounds[-1]
        ids = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.int32, total)
        ranges = pairwise(bounds)
        if not offsets:
            return [Tokens(ids[first:last], None, None) for first, last in ranges]
        pairs = chain.from_iterable(encoding.offsets for encoding in encodings)
        flat = np.fromiter(chain.from_iterable(pairs), np.int32, 2 * total)
        starts, ends = np.ascontiguousarray(flat.reshape(-1, 2).T)
        return [Tokens(ids[first:last], starts[first:last], ends[first:last]) for first, last in ranges]

    def _encodings(self, texts: list[str], offsets: bool) -> list[tokenizers.Encoding]:
        if self.serial:  # a batch, even of one text, would go to the library's pool, which has a thread for every core
            return [self.raw.encode(text, add_special_tokens=False) for text in texts]
        encode = self.raw.encode_batch if offsets else getattr(self.raw, "encode_batch_fast", self.raw.encode_batch)
        return list(encode(texts, add_special_tokens=False))


def _parse(read: Callable[[], Any], path: Path) -> Any:
    try:
        return read()
    except Exception as error:  # the library raises plain Exception
        raise CheckpointError(f"{path} is not a usable tokenizer: {error}") from error


def _from_json(text: str, serial: bool) -> Tokenizer:
    return Tokenizer(tokenizers.Tokenizer.from_str(text), serial=serial)


def _spec(raw: tokenizers.Tokenizer) -> dict[str, Any]:
    """What `make_cutter` needs of the tokenizer.json, without writing out the vocabulary (up to tens of MB)."""
    spec: dict[str, Any] = {"model": {"dropout": getattr(raw.model, "dropout", None)}}
    for name in ("normalizer", "pre_tokenizer", "post_processor"):
        part = getattr(raw, name)
        spec[name] = json.loads(part.__getstate__()) if part is not None else None
    fields = ("content", "single_word", "lstrip", "rstrip", "normalized")
    added = raw.get_added_tokens_decoder().values()
    spec["added_tokens"] = [{field: getattr(token, field) for field in fields} for token in added]
    return spec


def _specials(raw: tokenizers.Tokenizer, name: str) -> tuple[Int32, Int32]:
    """Prefix and suffix, as two different texts agree on them."""
    found = {_around(raw, probe) for probe in ("a", "one two")}
    if len(found) != 1 or None in found:
        raise CheckpointError(f"{name} does not put fixed special tokens around a text")
    prefix, suffix = next(pair for pair in found if pair is not None)
    return np.array(prefix, np.int32), np.array(suffix, np.int32)


def _wrap(raw: tokenizers.Tokenizer, wrap: tuple[str, str], name: str) -> None:
    """Makes the tokens of words around a text special ones, in the order in which they would be tokenised with it."""
    prefix, suffix = _specials(raw, name)
    raw.normalizer = tokenizers.normalizers.Sequence([tokenizers.normalizers.Strip(), *filter(None, [raw.normalizer])])
    found = {_around_words(raw, wrap, probe) for probe in ("a", "one two")}
    if len(found) != 1 or None in found:
        raise CheckpointError(f"{name} does not keep {wrap[0]!r} and {wrap[1]!r} apart from the text between them")
    opening, closing = next(pair for pair in found if pair is not None)
    parts = {"opening": [*prefix.tolist(), *opening], "closing": [*closing, *suffix.tolist()]}
    pieces = [{"id": key, "ids": ids, "tokens": [raw.id_to_token(i) for i in ids]} for key, ids in parts.items() if ids]
    single = " ".join([key if key in parts else "$A" for key in ("opening", "$A", "closing") if parts.get(key, key)])
    raw.post_processor = tokenizers.processors.TemplateProcessing(single=single, special_tokens=pieces)


def _around_words(
    raw: tokenizers.Tokenizer, wrap: tuple[str, str], probe: str
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The tokens of the words before and behind, if the text's own are the same between them."""
    opening, closing = wrap
    bare, before, whole = (
        raw.encode(text, add_special_tokens=False).ids for text in (probe, opening + probe, opening + probe + closing)
    )
    first = len(before) - len(bare)
    if before[first:] != bare or whole[: len(before)] != before:
        return None
    return tuple(before[:first]), tuple(whole[len(before) :])


def _around(raw: tokenizers.Tokenizer, probe: str) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    bare = raw.encode(probe, add_special_tokens=False).ids
    full = raw.encode(probe, add_special_tokens=True)
    mask = full.special_tokens_mask
    first = next((i for i, special in enumerate(mask) if not special), len(mask))
    last = first + len(bare)
    if not bare or full.ids[first:last] != bare:
        return None
    return tuple(full.ids[:first]), tuple(full.ids[last:])


def _slices(pieces: Iterator[tuple[int, int, str]]) -> Iterator[list[tuple[int, int, str]]]:
    """Groups of at most `_SLICE` code points, or of one piece."""
    group: list[tuple[int, int, str]] = []
    size = 0
    for piece in pieces:
        if group and size + len(piece[2]) > _SLICE:
            yield group
            group, size = [], 0
        group.append(piece)
        size += len(piece[2]) + 1  # empty texts count, so that a group of them is bounded too
    if group:
        yield group


def _shifted(tokens: Tokens, shift: int) -> Tokens:
    if not shift or tokens.starts is None or tokens.ends is None:
        return tokens
    return Tokens(tokens.ids, tokens.starts + np.int32(shift), tokens.ends + np.int32(shift))


def _joined(pieces: list[Tokens]) -> Tokens:
    if len(pieces) == 1:
        return pieces[0]
    starts = [piece.starts for piece in pieces if piece.starts is not None]
    ends = [piece.ends for piece in pieces if piece.ends is not None]
    ids = np.concatenate([piece.ids for piece in pieces])
    return Tokens(ids, np.concatenate(starts) if starts else None, np.concatenate(ends) if ends else None)
