"""Slices: the texts of a call in groups of bounded size, tokenised and packed, the next while this one is computed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from . import _csrc
from .errors import InputError
from .options import Options
from .pipeline import Pipeline, PromptedTokens
from .pooling.partials import document_partials
from .prefetch import prefetched
from .results import Usage
from .text.inputs import Input
from .text.packing import Document, PackedTexts
from .text_memory import text_bytes

_SLICE_TEXTS = 4096
_SLICE_CHARACTERS = 1 << 21
_STREAM_CHARACTERS = 1 << 18  # some seconds of work: what a stream holds back at most
_FIRST_CHARACTERS = 1 << 12  # a stream's first slice is one text or so many characters; each is twice the one before
_CEILING_CHARACTER = 2048  # bytes of a ceiling for each: a character takes some 64 at worst, in two slices
_CEILING_TEXT = 1 << 17  # the same for each text, which takes 1.5 kB however short it is
_LEFT_BY_TEXT = 32  # characters that leave as much behind as the objects of a text
_PATIENCE = 0.05  # seconds that a slice waits for texts; after a text that took so long, slices begin with one again


@dataclass(frozen=True, slots=True)
class Group:
    """Neighbouring texts of a call.

    Attributes:
        start: the index of the first.
        inputs: the texts.
        alone: whether nobody waits for the next group before this one is done.
    """

    start: int
    inputs: Sequence[Input]
    alone: bool = False

    @property
    def characters(self) -> int:
        """The length of the texts."""
        return sum(len(item.text) for item in self.inputs)

    def head(self, count: int) -> Group:
        """The first texts of it."""
        return Group(self.start, self.inputs[:count], self.alone)


@dataclass(frozen=True, slots=True)
class Slice:
    """A group, tokenised and packed.

    Attributes:
        group: the texts.
        tokens, documents: one entry per text.
        packed: their windows.
        failure: why the text that comes next is not usable, where it is not.
    """

    group: Group
    tokens: Sequence[PromptedTokens]
    documents: Sequence[Document]
    packed: PackedTexts
    failure: InputError | None = None

    @property
    def start(self) -> int:
        """The index of the first text."""
        return self.group.start

    @property
    def usages(self) -> list[Usage]:
        """What the model sees of each text."""
        return [
            Usage(len(tokens.ids), len(document.ids), len(document.windows))
            for tokens, document in zip(self.tokens, self.documents, strict=True)
        ]

    def head(self, pipeline: Pipeline, count: int) -> Slice:
        """The first texts of it."""
        documents = self.documents[:count]
        return Slice(self.group.head(count), self.tokens[:count], documents, pipeline.pack(documents))


def slice_characters(memory: int | None, usual: int) -> int:
    """The most characters of a slice, with a ceiling on the process's memory or without."""
    return usual if memory is None else min(usual, max(memory // _CEILING_CHARACTER, _FIRST_CHARACTERS))


def slice_texts(memory: int | None) -> int:
    """The most texts of a slice."""
    return _SLICE_TEXTS if memory is None else min(_SLICE_TEXTS, max(memory // _CEILING_TEXT, 64))


def listed_groups(inputs: Sequence[Input], memory: int | None = None) -> Iterator[Group]:
    """A list of texts in as few groups as the bounds allow; the last stands alone."""
    start, characters, most, texts = 0, 0, slice_characters(memory, _SLICE_CHARACTERS), slice_texts(memory)
    for index, item in enumerate(inputs):
        if index > start and (index - start == texts or characters + len(item.text) > most):
            yield Group(start, inputs[start:index])
            start, characters = index, 0
        characters += len(item.text)
    if start < len(inputs):
        yield Group(start, inputs[start:], alone=True)


def streamed_groups(inputs: Iterable[Input], memory: int | None = None) -> Iterator[Group]:
    """Texts as they come: one, then larger and larger groups, and one again after texts that were slow to come.

    If `inputs` raises, the texts that it gave before come first.
    """
    items = iter(inputs)
    start, texts, characters, ended = 0, 1, _FIRST_CHARACTERS, False
    most = slice_characters(memory, _STREAM_CHARACTERS)
    left: list[Input] = []  # what did not fit the group before
    while not ended:
        group, left = left, []
        size, failure, slow = sum(len(item.text) for item in group), None, False
        began = asked = time.monotonic()
        while not group or len(group) < texts:
            try:
                item = next(items)
            except StopIteration:
                ended = True
                break
            except Exception as error:
                failure = error
                break
            size += len(item.text)
            if group and size > characters:
                left = [item]
                break
            group.append(item)
            asked, before = time.monotonic(), asked
            slow = asked - before > _PATIENCE
            if asked - began > _PATIENCE:
                break
        if group:
            yield Group(start, group, alone=slow or ended or failure is not None or start == 0)
        if failure is not None:
            raise failure
        start += len(group)
        texts = 1 if slow else min(2 * len(group), slice_texts(memory))
        characters = _FIRST_CHARACTERS if slow else min(2 * characters, most)


def slices(pipeline: Pipeline, groups: Iterator[Group], options: Options, *, offsets: bool) -> Iterator[Slice]:
    """The groups, taken as they are needed; the next is tokenised meanwhile, unless the tokenizer is serial.

    Raises:
        InputError: a text is too long and the policy is "error", the prompt leaves no room, or a text lacks the token
            that is pooled. All texts before it have been handed out.
        MemoryCeilingError: tokenising a slice would not leave the process below its ceiling.
    """
    left, most = 0, slice_characters(pipeline.memory, _SLICE_CHARACTERS) // 2
    serial = pipeline.tokenizer.serial
    for part in prefetched(
        lambda group: make_slice(pipeline, group, options, offsets=offsets), groups, lambda group: serial or group.alone
    ):
        failure = part.failure
        if part.documents:
            yield part
        left += part.group.characters + _LEFT_BY_TEXT * len(part.documents)
        del part
        if failure is not None:
            raise failure
        if left >= most:
            _csrc.trim_memory()  # so that many slices take no more than a few
            left = 0


def make_slice(pipeline: Pipeline, group: Group, options: Options, *, offsets: bool) -> Slice:
    """Tokenise and pack one group, up to the first text that is not usable."""
    # One token more than fits shows that a text is cut; how many there are is counted only for those who ask.
    limit = options.max_seq_length + 1 if options.long_text == "truncate" and not options.count_tokens else None
    if pipeline.ceiling is not None:  # nobody counts otherwise
        needed = text_bytes((item.text for item in group.inputs), offsets=offsets, limit=limit)
        what = f"{options.what}[{group.start}] takes" if len(group.inputs) == 1 else "texts take"
        pipeline.require(needed, what)
    pieces = [item.pieces for item in group.inputs if item.pieces is not None]
    if pieces:  # given so, all of them
        tokens = pipeline.tokenize_separated(pieces, options.prompt)
    else:
        texts = [item.text for item in group.inputs]
        tokens = pipeline.tokenize(texts, options.prompt, offsets=offsets, limit=limit)
    documents: list[Document] = []
    failure = None
    try:
        for i, item in enumerate(tokens):
            _check_ids(pipeline, item, f"{options.what}[{group.start + i}]")
            documents.append(_document(pipeline, item, group.start + i, options))
    except InputError as error:
        failure, group, tokens = error, group.head(len(documents)), tokens[: len(documents)]
    part = Slice(group, tokens, documents, pipeline.pack(documents), failure)
    lacking = _first_lacking(pipeline, part.packed)
    if lacking is None:
        return part
    index, token = lacking
    where = f"{options.what}[{group.start + index}]"
    failure = InputError(f"{where} has no {token!r}, from which vectors are pooled")
    return replace(part.head(pipeline, index), failure=failure)


def _check_ids(pipeline: Pipeline, tokens: PromptedTokens, where: str) -> None:
    known = pipeline.vocabulary
    for ids in (tokens.prompt, tokens.ids):
        if len(ids) and int(ids.max()) >= known:
            token = pipeline.tokenizer.raw.id_to_token(int(ids.max()))
            raise InputError(
                f"{where} has the token {token!r} of id {int(ids.max())}, but the checkpoint "
                f"embeds {known} ids only: {pipeline.recipe.files.tokenizer} holds another model's tokenizer"
            )


def _document(pipeline: Pipeline, tokens: PromptedTokens, index: int, options: Options) -> Document:
    truncate = options.long_text == "truncate"
    document = pipeline.windowed(tokens, options.max_seq_length, overlap=options.window_overlap, truncate=truncate)
    if options.long_text == "error" and len(document.windows) > 1:
        room = pipeline.capacity(len(tokens.prompt), options.max_seq_length)
        raise InputError(f"{options.what}[{index}] has {len(tokens.ids)} tokens, but only {room} fit the model at once")
    return document


def _first_lacking(pipeline: Pipeline, packed: PackedTexts) -> tuple[int, str] | None:
    """The first text without the token that its vector is pooled from, and that token."""
    lacking: list[tuple[int, str]] = []
    for name, mode in zip(pipeline.recipe.pooling, pipeline.modes, strict=True):
        if mode.rows == "token":
            partials = document_partials(packed, mode, include_prompt=pipeline.recipe.include_prompt)
            empty = np.flatnonzero(np.diff(partials.cu_vectors) == 0)
            lacking += [(int(index), name.partition(":")[2]) for index in empty[:1]]
    return min(lacking, default=None)
