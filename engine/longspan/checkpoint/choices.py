"""What a caller chooses where a model folder leaves a choice, or instead of what it says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InputError, InputTypeError
from .entries import Entry
from .modules import Pooling, checked_mode

# sentence-transformers knows by these names that their pooling leaves the instruction out; their files do not say so.
INSTRUCTORS = ("hkunlp/instructor-base", "hkunlp/instructor-large", "hkunlp/instructor-xl")


@dataclass(frozen=True, slots=True)
class Choices:
    """None leaves it to the folder.

    Attributes:
        dense: the name of the folder of one of several Dense modules.
        pooling: modes, as in `Recipe`.
        include_prompt: whether the pooling counts the prompt's tokens.
    """

    dense: str | None = None
    pooling: tuple[str, ...] | None = None
    include_prompt: bool | None = None

    @classmethod
    def of(cls, model: object, dense: object, pooling: object, include_prompt: object) -> Choices:
        """The choices for a model, by the name that it was asked for, with their types checked.

        Raises:
            InputTypeError, InputError: one of them is not usable.
        """
        if dense is not None and not isinstance(dense, str):
            raise InputTypeError(f"dense is {type(dense).__name__}, expected the name of a module's folder")
        if include_prompt is not None and not isinstance(include_prompt, bool):
            raise InputTypeError(f"include_prompt is {type(include_prompt).__name__}, expected True or False")
        if include_prompt is None and model in INSTRUCTORS:
            include_prompt = False
        return cls(dense, None if pooling is None else _modes(pooling), include_prompt)

    def pooled(self, pooling: Pooling) -> Pooling:
        """The pooling of a folder with what was chosen instead."""
        prompted = pooling.include_prompt if self.include_prompt is None else self.include_prompt
        own_tokens = pooling.own_tokens and not self.include_prompt
        return replace(pooling, modes=self.pooling or pooling.modes, include_prompt=prompted, own_tokens=own_tokens)

    def chain(self, entries: Iterable[Entry]) -> tuple[Entry, ...]:
        """The modules with the Dense that was chosen in the place of the one that it is a variant of."""
        return tuple(self._chosen(entry) for entry in entries)

    def _chosen(self, entry: Entry) -> Entry:
        if self.dense is None or entry.kind != "Dense":
            return entry
        return replace(entry, folder=next((at for at in variants(entry) if at.name == self.dense), entry.folder))

    def check(self, chains: Sequence[tuple[Entry, ...]]) -> None:
        """Raise an InputError if the Dense that was chosen is in none of the chains."""
        entries = [entry for chain in chains for entry in chain if entry.kind == "Dense"]
        if self.dense is None or self.dense in (entry.folder.name for entry in entries):
            return
        known = sorted({at.name for entry in entries for at in variants(entry)})
        raise InputError(f"there is no Dense {self.dense!r}; there are {', '.join(known) or 'none'}")


NOTHING = Choices()


def variants(entry: Entry) -> Iterator[Path]:
    """The folders of a Dense and of those that can stand in its place: "2_Dense", "2_Dense_256", "2_Dense_1024"."""
    stem = re.sub(r"_\d+$", "", entry.folder.name)
    for place in sorted(entry.folder.parent.iterdir()):
        if re.fullmatch(rf"{re.escape(stem)}(_\d+)?", place.name) and (place / "config.json").exists():
            yield place


def _modes(pooling: object) -> tuple[str, ...]:
    names = (pooling,) if isinstance(pooling, str) else pooling
    if not isinstance(names, Sequence) or not names:
        raise InputTypeError(f"pooling is {type(pooling).__name__}, expected a mode or several of them")
    try:
        return tuple(checked_mode(name) for name in names)
    except ValueError as error:
        raise InputError(f"pooling {error}") from None
