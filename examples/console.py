"""What the demo needs of a terminal: colour where it is wanted, lines that fit, and the process's peak memory."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import unicodedata
from pathlib import Path

WIDEST = 100  # longer lines are hard to read


class Style:
    """Colours, unless the output is no terminal or NO_COLOR is set (see no-color.org)."""

    def __init__(self) -> None:
        self._on = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._on else text

    def bold(self, text: str) -> str:
        return self._paint(text, "1")

    def dim(self, text: str) -> str:
        return self._paint(text, "2")

    def accent(self, text: str) -> str:
        return self._paint(text, "1;32")


def wrapped(text: str, indent: int) -> list[str]:
    """Lines of the terminal's width. Control characters become spaces: a text must not command the terminal."""
    width = min(shutil.get_terminal_size((80, 24)).columns, WIDEST)
    plain = "".join(character if character.isprintable() else " " for character in text)
    if any(unicodedata.east_asian_width(character) in "WF" for character in plain):
        width = (width + indent) // 2  # such characters take two columns
    margin = " " * indent
    return textwrap.wrap(
        " ".join(plain.split()), width=max(width, indent + 20), initial_indent=margin, subsequent_indent=margin
    )


def peak_memory() -> str:
    """The most memory this process has had resident (`ru_maxrss` would start at the parent's peak)."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return f"{int(line.split()[1]) / 1024:,.0f} MiB"
    except OSError:
        pass
    return "unknown on this system"
