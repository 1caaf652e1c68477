"""What becomes of records that cannot be used."""

from __future__ import annotations

from ..errors import InputError
from .terminal import counted, note


class Skipped:
    """Broken records: the first is an error, or all are counted.

    Attributes:
        count: how many there were.
        first: what is wrong with the first.
    """

    def __init__(self, allowed: bool) -> None:
        self._allowed = allowed
        self.count = 0
        self.first = ""

    def __call__(self, message: str) -> None:
        """One more."""
        if not self._allowed:
            raise InputError(f"{message} (--skip-errors passes over such records)")
        self.first = self.first or message
        self.count += 1

    def report(self) -> None:
        """Say how many there were."""
        if self.count:
            note(f"warning: passed over {counted(self.count, 'broken record')}; the first: {self.first}")
