"""What every workload of `cpu` shares: how often, where exports go, the ceilings, and who could not take part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from ..peers import UnavailableError
from ..runner import Measurement
from .ceilings import ceilings
from .report import Task


class Participant(Protocol):
    """Whoever takes part."""

    @property
    def obeys_tier(self) -> bool:
        """Whether it keeps to the tier of instructions that the environment asks for."""


P = TypeVar("P", bound=Participant)


@dataclass
class Setup:
    """One workload of one run of the command."""

    model: Path
    rounds: int
    exports: Path
    isa: str  # the tier of instructions that was asked for; empty for the best
    ceilings: dict[str, float] = field(default_factory=dict)  # operations per second by precision, the most seen
    skipped: dict[str, str] = field(default_factory=dict)  # why, by name
    obeyed: dict[str, bool] = field(default_factory=dict)  # whether it keeps to the tier that was asked for

    def look_up(self) -> None:
        """Measures the ceilings once more: a busy minute must not lower them."""
        for precision, peak in ceilings(self.isa).items():
            self.ceilings[precision] = max(peak, self.ceilings.get(precision, 0.0))

    @staticmethod
    def report(line: str) -> None:
        """Shows how far it is."""
        print(f"  {line}", flush=True)

    def report_unchecked(self, reason: str) -> None:
        """Says that this workload compares no vectors with a reference."""
        self.report(f"vectors are unchecked: {reason}")

    def try_to_make(self, name: str, make: Callable[[str], P]) -> P | None:
        """What `make` gives, or None and a line where it cannot run here."""
        if name in self.skipped:
            return None
        try:
            made = make(name)
        except UnavailableError as error:
            self.skipped[name] = str(error)
            self.report(f"skipped {name}: {error}")
            return None
        self.obeyed[name] = made.obeys_tier
        return made

    def task(
        self,
        title: str,
        results: Sequence[Measurement],
        work: float = 0.0,
        beside: Mapping[str, Measurement] | None = None,
    ) -> Task:
        """The results beside the ceilings; `work` is in operations, 0 where nothing is said of ceilings."""
        self.look_up()
        free = frozenset(name for name, obeys in self.obeyed.items() if self.isa and not obeys)
        return Task(title, results, work, self.ceilings, free, beside or {})
