"""Slices: the texts of a call in groups of bounded size, tokenised and packed, the next while this one is computed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from . import _csrc
from .errors import InputError
from .options import Options
from .pipeline import Pipeline, PromptedTokens
from .prefetch import prefetched
from .results import Usage
from .text.inputs import Input
from .text.packing import Document, PackedTexts

_SLICE_TEXTS = 4096
_SLICE_CHARACTERS = 1 << 21
_FIRST_TEXTS = 64  # of a stream, whose slices grow from there
_PATIENCE = 0.05  # seconds that a stream's texts may take to come before those there are go ahead


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

    def one_by_one(self) -> Iterator[Group]:
        """Each text as a group of its own."""
        return (Group(self.start + i, [item], alone=True) for i, item in enumerate(self.inputs))


@dataclass(frozen=True, slots=True)
class Slice:
    """A group, tokenised and packed.

    Attributes:
        group: the texts.
        tokens, documents: one entry per text.
        packed: their windows.
    """

    group: Group
    tokens: Sequence[PromptedTokens]
    documents: Sequence[Document]
    packed: PackedTexts

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


def listed_groups(inputs: Sequence[Input]) -> Iterator[Group]:
    """A list of texts in as few groups as the bounds allow; the last stands alone."""
    start, characters = 0, 0
    for index, item in enumerate(inputs):
        if index > start and (index - start == _SLICE_TEXTS or characters + len(item.text) > _SLICE_CHARACTERS):
            yield Group(start, inputs[start:index])
            start, characters = index, 0
        characters += len(item.text)
    if start < len(inputs):
        yield Group(start, inputs[start:], alone=True)


def streamed_groups(inputs: Iterable[Input]) -> Iterator[Group]:
    """Texts as they come: small groups first, and none waits for texts that are slow to come.

    If `inputs` raises, the texts that it gave before come first.
    """
    items = iter(inputs)
    start, limit, ended = 0, min(_FIRST_TEXTS, _SLICE_TEXTS), False
    left: list[Input] = []  # what did not fit the group before
    while not ended:
        group, left = left, []
        characters, began, failure = sum(len(item.text) for item in group), time.monotonic(), None
        while not group or (len(group) < limit and time.monotonic() - began < _PATIENCE):
            try:
                item = next(items)
            except StopIteration:
                ended = True
                break
            except Exception as error:
                failure = error
                break
            characters += len(item.text)
            if group and characters > _SLICE_CHARACTERS:
                left = [item]
                break
            group.append(item)
        slow = not left and len(group) < limit
        if group:
            yield Group(start, group, alone=slow)
        if failure is not None:
            raise failure
        start, limit = start + len(group), min(2 * limit, _SLICE_TEXTS)


def slices(pipeline: Pipeline, groups: Iterator[Group], options: Options, *, offsets: bool) -> Iterator[Slice]:
    """The groups, taken as they are needed; the next is tokenised meanwhile.

    Raises:
        InputError: a text is too long and the policy is "error", or the prompt leaves no room. All texts before it
            have been handed out.
    """

    def make(group: Group) -> Slice | Group:
        try:
            return make_slice(pipeline, group, options, offsets=offsets)
        except InputError:
            return group

    characters = 0
    for part in prefetched(make, groups, lambda group: group.alone):
        if isinstance(part, Group):
            yield from (make_slice(pipeline, one, options, offsets=offsets) for one in part.one_by_one())
        else:
            yield part
            characters += part.group.characters
        del part
        if characters >= _SLICE_CHARACTERS // 2:
            _csrc.trim_memory()  # so that many slices take no more than a few
            characters = 0


def make_slice(pipeline: Pipeline, group: Group, options: Options, *, offsets: bool) -> Slice:
    """Tokenise and pack one group; raises as `slices`."""
    # One token more than fits shows that a text is cut; how many there are is counted only for those who ask.
    limit = options.max_seq_length + 1 if options.long_text == "truncate" and not options.count_tokens else None
    pieces = [item.pieces for item in group.inputs if item.pieces is not None]
    if pieces:  # given so, all of them
        tokens = pipeline.tokenize_separated(pieces, options.prompt)
    else:
        texts = [item.text for item in group.inputs]
        tokens = pipeline.tokenize(texts, options.prompt, offsets=offsets, limit=limit)
    _check_ids(pipeline, tokens, group.start, options)
    documents = [_document(pipeline, item, group.start + i, options) for i, item in enumerate(tokens)]
    return Slice(group, tokens, documents, pipeline.pack(documents))


def _check_ids(pipeline: Pipeline, group: Sequence[PromptedTokens], start: int, options: Options) -> None:
    known = pipeline.vocabulary
    for i, tokens in enumerate(group):
        for ids in (tokens.prompt, tokens.ids):
            if len(ids) and int(ids.max()) >= known:
                token = pipeline.tokenizer.raw.id_to_token(int(ids.max()))
                raise InputError(
                    f"{options.what}[{start + i}] has the token {token!r} of id {int(ids.max())}, but the checkpoint "
                    f"embeds {known} ids only: {pipeline.recipe.transformer} holds another model's tokenizer"
                )


def _document(pipeline: Pipeline, tokens: PromptedTokens, index: int, options: Options) -> Document:
    truncate = options.long_text == "truncate"
    document = pipeline.windowed(tokens, options.max_seq_length, overlap=options.window_overlap, truncate=truncate)
    if options.long_text == "error" and len(document.windows) > 1:
        room = pipeline.capacity(len(tokens.prompt), options.max_seq_length)
        raise InputError(f"{options.what}[{index}] has {len(tokens.ids)} tokens, but only {room} fit the model at once")
    return document
