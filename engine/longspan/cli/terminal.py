"""What goes to the terminal: lines without control characters, tables, JSON."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")


def one_line(text: str) -> str:
    """The text with runs of whitespace and control characters as single spaces."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def counted(number: int, noun: str) -> str:
    """ "1 vector", "2,000 vectors"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def note(text: str) -> None:
    """A line on standard error, beside the output proper; nothing where that is closed."""
    if sys.stderr is not None:  # which `print` takes for standard output
        print(f"longspan: {one_line(text)}", file=sys.stderr)


def show(lines: Iterable[str]) -> None:
    """Lines on standard output; what its encoding lacks is escaped."""
    encoding = _encoding()
    for line in lines:
        print(line.encode(encoding, "backslashreplace").decode(encoding))


def show_json(value: Any) -> None:
    """One JSON document on standard output; plain ASCII where there is no Unicode, or a file's name is none."""
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)
    unicode = _encoding().lower().replace("-", "") == "utf8"
    print(text if unicode and not _SURROGATE.search(text) else json.dumps(value, indent=2, allow_nan=False))


def _encoding() -> str:
    return getattr(sys.stdout, "encoding", None) or "utf-8"  # there may be no standard output at all


def fields(pairs: Sequence[tuple[str, str]]) -> Iterable[str]:
    """Names and values, the values aligned."""
    width = max(len(name) for name, _ in pairs)
    return (f"{name.ljust(width)}  {value}".rstrip() for name, value in pairs)
