"""Which files the inputs stand for: files, folders, standard input."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError

KINDS = {".txt": "text", ".md": "text", ".markdown": "text", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}
STANDARD_INPUT = "-"


@dataclass(frozen=True, slots=True)
class Source:
    """One file, or standard input.

    Attributes:
        name: as the user gave it, or its folder; printable.
        kind: "text", "jsonl" or "csv".
        size: in bytes.
        modified: in nanoseconds, 0 for standard input.
        path: None for standard input.
        data: the contents of standard input.
    """

    name: str
    kind: str
    size: int
    modified: int
    path: Path | None
    data: bytes = field(default=b"", repr=False)


def find_sources(inputs: Sequence[str], exclude: Sequence[Path] = ()) -> list[Source]:
    """The files behind the inputs, in their order; folders recursively and sorted, without hidden files.

    Args:
        inputs: files, folders, or "-" for standard input.
        exclude: files and folders that are passed over inside folders: the output's own.

    Raises:
        InputError: a file is of no known kind, or a folder holds none that is.
        OSError: a file cannot be found.
    """
    excluded = {_real(path) for path in exclude}
    sources: list[Source] = []
    if inputs.count(STANDARD_INPUT) > 1:
        raise InputError("standard input (-) can be read only once")
    for given in inputs:
        if not given:  # which Path takes for the working directory
            raise InputError("the name of an input is empty")
        path = Path(given)
        if given == STANDARD_INPUT:
            data = sys.stdin.buffer.read()
            sources.append(Source(given, "text", len(data), 0, None, data))
        elif path.is_dir():
            sources += _folder(path, excluded)
        elif _real(path) in excluded:
            raise InputError(f"{_printable(path)} is both input and output")
        else:
            sources.append(_source(path))
    return sources


def _folder(folder: Path, excluded: set[str]) -> list[Source]:
    found: list[Path] = []
    for at, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".") and _real(Path(at, name)) not in excluded]
        found += [Path(at, name) for name in files if not name.startswith(".")]
    paths = [path for path in found if path.suffix.lower() in KINDS and _real(path) not in excluded]
    if not paths:
        raise InputError(f"{_printable(folder)} holds no file that ends in {', '.join(KINDS)}")
    return [_source(path) for path in sorted(paths, key=lambda path: path.parts)]


def _real(path: Path) -> str:
    """Where it is, whatever links lead there; unlike `Path.resolve`, links in a circle are no error yet."""
    return os.path.realpath(path)


def _raise(error: OSError) -> None:
    raise error


def _source(path: Path) -> Source:
    status = path.stat()
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise InputError(f"{_printable(path)} is of no known kind; a name must end in {', '.join(KINDS)}")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{_printable(path)} is not a regular file")
    return Source(_printable(path), kind, status.st_size, status.st_mtime_ns, path)


def _printable(path: Path) -> str:
    """The name as text; bytes that are not UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def as_now(sources: Sequence[Source]) -> list[Source]:
    """The same sources with the sizes and times that their files have now."""
    return [source if source.path is None else _source(source.path) for source in sources]
