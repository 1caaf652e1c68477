"""What becomes of records that cannot be used."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import InputError
from .terminal import counted, note

MOST_NAMED = 10


class Skipped:
    """Broken records: the first is an error, or all are counted.

    Attributes:
        count: how many there were.
        named: what is wrong with each of the first `MOST_NAMED`, with its place.
    """

    def __init__(self, allowed: bool) -> None:
        self._allowed = allowed
        self.count = 0
        self.named: list[str] = []

    def __call__(self, message: str) -> None:
        """One more."""
        if not self._allowed:
            raise InputError(f"{message} (--skip-errors passes over such records)")
        if self.count < MOST_NAMED:
            self.named.append(message)
        self.count += 1


def report_skipped(count: int, named: Sequence[str]) -> None:
    """Name the records that were passed over, then say how many more there were."""
    for message in named:
        note(f"warning: passed over {message}")
    if count > len(named):
        note(f"warning: passed over {count - len(named):,} more, {counted(count, 'broken record')} in all")
