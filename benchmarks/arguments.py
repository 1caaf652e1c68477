"""Types of command-line options that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection


def positive(value: str) -> int:
    """A whole number above 0."""
    if not value.isdigit() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a whole number above 0")
    return int(value)


def positives(value: str) -> tuple[int, ...]:
    """Whole numbers above 0 with commas between, each once, in the given order."""
    return tuple(dict.fromkeys(positive(item) for item in value.split(",")))


def percentages(value: str) -> tuple[int, ...]:
    """Whole percentages from 0 to 99 with commas between, each once, in the given order."""
    for item in value.split(","):
        if not item.isdigit() or int(item) > 99:
            raise argparse.ArgumentTypeError(f"{item!r} is not a whole number from 0 to 99")
    return tuple(dict.fromkeys(map(int, value.split(","))))


def peer_names(known: Collection[str]) -> Callable[[str], list[str]]:
    """What reads names of peers, separated by commas, each of which is known."""

    def read(value: str) -> list[str]:
        names = list(dict.fromkeys(value.split(",")))
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"unknown peer {name!r}; known are {', '.join(known)}")
        return names

    return read
