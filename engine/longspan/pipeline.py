"""One checkpoint from text to vector: what does not depend on a call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from .backbone import Changes, load_backbone
from .batch import Float32, Int32, PackedBatch, Partials
from .checkpoint.recipe import Recipe
from .errors import CheckpointError, InputError
from .executors.ceiling import CALLS, UNCOUNTED, Ceiling
from .executors.choice import MakeExecutor
from .executors.protocol import Executor
from .models.binding import bind
from .models.family import Body
from .pooling.modes import Mode, mode_of, pool_kinds
from .pooling.tail import build_tail, ends_in_normalize, tail_tensors, tail_width
from .program.program import Program
from .samples import sample_batch
from .text.packing import Document, PackedTexts, pack
from .text.separator import Separator, separate
from .text.tokenizer import Tokenizer, Tokens
from .text.windows import split_windows
from .text_memory import VECTOR

EXPECTED_TOKENS = 32768
"""Tokens of the longest text that memory is kept for, where a ceiling asks; longer ones find out when they come."""

TAILS = 8
"""How many dimensions' tails are kept."""


@dataclass(frozen=True, slots=True)
class PromptedTokens:
    """A text's tokens behind its prompt's.

    Attributes:
        prompt: [r] ids of the prompt.
        ids: [n] ids of the text.
        starts, ends: [n] code points of the text, or None if offsets were not needed.
    """

    prompt: Int32
    ids: Int32
    starts: Int32 | None
    ends: Int32 | None


@dataclass(frozen=True, slots=True)
class Trunk:
    """What pipelines share that differ in their tails alone.

    Attributes:
        body: the model.
        vocabulary: how many token ids have embeddings.
        tokenizer: of the texts.
        executor: runs the body with its pools, and tails.
    """

    body: Body
    vocabulary: int
    tokenizer: Tokenizer
    executor: Executor

    @classmethod
    def load(cls, recipe: Recipe, make_executor: MakeExecutor, changes: Changes, *, serial: bool = False) -> Trunk:
        """Load a checkpoint's transformer.

        Args:
            recipe: of the checkpoint.
            make_executor: makes the executor from the pooled body, the checkpoint's tensors, sample texts and the
                length of the longest text to expect.
            changes: to the model.
            serial: whether texts are tokenised by the caller's thread alone.

        Raises:
            CheckpointError: the checkpoint is incomplete, damaged or not supported.
            InputError: the changes do not fit it.
        """
        backbone = load_backbone(recipe, changes)
        tokenizer = Tokenizer.load(
            recipe.files.tokenizer,
            lower_case=recipe.lower_case,
            specials=not recipe.static,
            wrap=recipe.wrap,
            serial=serial,
        )
        _check_specials(tokenizer, backbone.vocabulary, recipe.files.tokenizer)
        program = backbone.body.pooled(pool_kinds(recipe.pooling))
        modes = pooling_modes(recipe, tokenizer, backbone.vocabulary)
        samples = partial(sample_batch, tokenizer, backbone.body.max_positions, modes)
        positions = backbone.body.max_positions
        longest = min(recipe.max_seq_length or positions, positions, EXPECTED_TOKENS)
        executor = make_executor(program, backbone.bound(program), samples, longest)
        return cls(backbone.body, backbone.vocabulary, tokenizer, executor)


class Pipeline:
    """A checkpoint, loaded.

    Args:
        folder: the model folder.
        recipe: what it says, for some of its tasks.
        trunk: the recipe's transformer, with the recipe's pools.
    """

    def __init__(self, folder: Path, recipe: Recipe, trunk: Trunk) -> None:
        self.recipe = recipe
        self.body, self.vocabulary = trunk.body, trunk.vocabulary
        self.tokenizer, self.executor = trunk.tokenizer, trunk.executor
        self.separator = _separator(self.recipe, self.tokenizer, self.vocabulary)
        self.modes = pooling_modes(recipe, trunk.tokenizer, trunk.vocabulary)
        self.tail_tensors = tail_tensors(folder, recipe.tail)
        self.dimension = tail_width(self.recipe.pooling, self.body.output.width, self.recipe.tail)
        self.unit = ends_in_normalize(self.recipe.tail)
        self._tails: dict[tuple[int, bool], Program] = {}
        bind(self.tail(self.dimension, self.unit), self.tail_tensors)  # a damaged module is noticed now

    @property
    def positions(self) -> int:
        """How many tokens, specials included, the checkpoint has positions for."""
        return self.body.max_positions

    @property
    def own_length(self) -> int:
        """How many tokens the checkpoint wants to see at a time: its word, or what it has positions for.

        With an extension, as many as that is for.
        """
        wanted = None if self.body.extension else self.recipe.max_seq_length
        return min(wanted or self.positions, self.positions)

    @property
    def ceiling(self) -> Ceiling | None:
        """The ceiling on the process's memory that its executor keeps to."""
        return self.executor.ceiling

    @property
    def memory(self) -> int | None:
        """That ceiling in bytes."""
        return None if self.ceiling is None else self.ceiling.memory

    def length(self, wanted: int | None) -> int:
        """How many tokens it sees at a time: as many as are wanted, up to its positions; None for its own length."""
        return self.own_length if wanted is None else min(wanted, self.positions)

    def tail(self, dimension: int, unit: bool) -> Program:
        """The tail for vectors of one dimension; the last few are kept."""
        key = (dimension, unit)
        if key not in self._tails:
            recipe = self.recipe
            width = self.body.output.width
            built = build_tail(recipe.pooling, width, recipe.tail, dimension=dimension, unit=unit)
            self._tails = dict([*self._tails.items(), (key, built)][-TAILS:])
            return built
        return self._tails[key]

    # --- text to packed texts ------------------------------------------------------------------------------------

    def tokenize(
        self, texts: Sequence[str], prompt: str, *, offsets: bool, limit: int | None = None
    ) -> list[PromptedTokens]:
        """Tokens of prompt + text, as one string; those whose first visible code point is the prompt's are its own.

        With a `limit`, only so many tokens, prompt included, are needed of each text; what follows may be missing.
        """
        nothing = np.zeros(0, np.int32)
        if not prompt:
            plain = self._encode(texts, limit, offsets=offsets)
            return [PromptedTokens(nothing, tokens.ids, tokens.starts, tokens.ends) for tokens in plain]
        whole = self._encode([prompt + text for text in texts], limit, offsets=True)
        return [_behind_prompt(tokens, prompt, text) for tokens, text in zip(whole, texts, strict=True)]

    def tokenize_separated(self, documents: Sequence[Sequence[str]], prompt: str) -> list[PromptedTokens]:
        """Tokens of documents that are lists of chunks: prompt and first chunk as one string, then each one alone."""
        assert self.separator is not None
        heads = self.tokenize([pieces[0] if pieces else "" for pieces in documents], prompt, offsets=True)
        others = iter(self.tokenizer.encode([text for pieces in documents for text in pieces[1:]], offsets=True))
        found = []
        for head, pieces in zip(heads, documents, strict=True):
            first = Tokens(head.ids, head.starts, head.ends)
            parts = [first, *(next(others) for _ in pieces[1:])]
            whole = separate(parts, [len(text) for text in pieces] or [0], self.separator)
            found.append(PromptedTokens(head.prompt, whole.ids, whole.starts, whole.ends))
        return found

    def _encode(self, texts: Sequence[str], limit: int | None, *, offsets: bool) -> list[Tokens]:
        if limit is None:
            return self.tokenizer.encode(texts, offsets=offsets)
        return self.tokenizer.encode_start(texts, limit, offsets=offsets)

    def capacity(self, prompt_tokens: int, max_seq_length: int) -> int:
        """How many of a text's own tokens fit one window.

        Raises:
            InputError: the prompt and the special tokens leave no room.
        """
        room = max_seq_length - len(self.tokenizer.prefix) - len(self.tokenizer.suffix) - prompt_tokens
        if room < 1:
            raise InputError(
                f"max_seq_length {max_seq_length} leaves no room for text beside {prompt_tokens} prompt tokens and "
                f"{max_seq_length - room - prompt_tokens} special tokens"
            )
        return room

    def windowed(
        self, tokens: PromptedTokens, max_seq_length: int, *, overlap: int | None = None, truncate: bool = False
    ) -> Document:
        """The document that the model will see: cut to one window, or in overlapping windows (default a quarter)."""
        capacity = self.capacity(len(tokens.prompt), max_seq_length)
        ids = tokens.ids[:capacity] if truncate else tokens.ids
        windows = split_windows(len(ids), capacity, capacity // 4 if overlap is None else overlap)
        return Document(tokens.prompt, ids, windows)

    def pack(self, documents: Sequence[Document]) -> PackedTexts:
        """The documents' windows, end to end."""
        return pack(documents, self.tokenizer.prefix, self.tokenizer.suffix, self.body.padding)

    # --- below a ceiling -----------------------------------------------------------------------------------------

    @contextmanager
    def call(self, vectors: int, dimension: int, unit: bool) -> Iterator[None]:
        """A call that gives so many vectors: below a ceiling one at a time, and only if there is room for these.

        Raises:
            MemoryCeilingError: there is none.
        """
        if self.ceiling is None:
            yield
            return
        with CALLS:
            self.executor.prepare_tail(self.tail(dimension, unit), self.tail_tensors)
            self.require(vectors * (4 * dimension + VECTOR), f"{vectors:,} vectors take")
            yield

    def require(self, needed: int, what: str) -> None:
        """Make room for so many bytes below the ceiling, if there is one.

        Raises:
            MemoryCeilingError: there is not so much; it says what takes them.
        """
        if self.ceiling is not None and needed > UNCOUNTED and needed > self.ceiling.room(0):
            self.executor.release()
            self.ceiling.require(needed, what)

    # --- packed texts to vectors ---------------------------------------------------------------------------------

    def run_body(
        self, texts: PackedTexts, partials: tuple[Partials, ...], poll: Callable[[int], None] | None = None
    ) -> tuple[Float32, ...]:
        """Partials [P, D] per pooling mode."""
        return self.executor.run_body(self.batch(texts, partials), poll=poll)

    def batch(self, texts: PackedTexts, partials: tuple[Partials, ...]) -> PackedBatch:
        """What the executor takes."""
        own = self.recipe.adaptation
        task = None if own is None else own.index
        return PackedBatch(texts.ids, texts.positions, texts.cu_seqlens, partials, task)

    def run_tail(
        self, pooled: tuple[Float32, ...], partials: tuple[Partials, ...], dimension: int, unit: bool
    ) -> Float32:
        """Vectors [N, dimension]."""
        return self.executor.run_tail(self.tail(dimension, unit), self.tail_tensors, pooled, partials)


def _check_specials(tokenizer: Tokenizer, known: int, folder: Path) -> None:
    for token in (*tokenizer.prefix, *tokenizer.suffix):
        if token >= known:
            raise CheckpointError(
                f"{folder}: the tokenizer puts the token id {token} around texts, but the checkpoint embeds {known} "
                "ids only; it holds another model's tokenizer."
            )


def pooling_modes(recipe: Recipe, tokenizer: Tokenizer, vocabulary: int) -> tuple[Mode, ...]:
    """The recipe's poolings.

    Raises:
        CheckpointError: the tokenizer's vocabulary, or the embeddings, lack the token that one is about.
    """
    modes = []
    for name in recipe.pooling:
        mode = mode_of(name, tokenizer.raw.token_to_id)
        if mode.rows == "token" and (mode.token is None or mode.token >= vocabulary):
            raise CheckpointError(f"{recipe.files.tokenizer}: the vocabulary lacks the token of the pooling {name!r}.")
        modes.append(replace(mode, own=recipe.own_tokens))
    return tuple(modes)


def _separator(recipe: Recipe, tokenizer: Tokenizer, known: int) -> Separator | None:
    """The token between chunks that the checkpoint declares."""
    if recipe.separator is None:
        return None
    token = tokenizer.raw.token_to_id(recipe.separator)
    if token is None or token >= known:
        raise CheckpointError(
            f"{recipe.files.tokenizer}: the separator token {recipe.separator!r} is not in the vocabulary."
        )
    return Separator(recipe.separator, token)


def _behind_prompt(tokens: Tokens, prompt: str, text: str) -> PromptedTokens:
    assert tokens.starts is not None
    assert tokens.ends is not None
    boundary = len(prompt)
    count = int(np.searchsorted(tokens.starts, boundary, side="left"))
    # A token that begins with the prompt's last space may have its first visible code point in the text.
    whole = prompt + text
    while count and tokens.ends[count - 1] > boundary and not whole[tokens.starts[count - 1] : boundary].strip():
        count -= 1
    starts = np.maximum(tokens.starts[count:] - boundary, 0).astype(np.int32)
    ends = (tokens.ends[count:] - boundary).astype(np.int32)
    return PromptedTokens(tokens.ids[:count], tokens.ids[count:], starts, ends)
