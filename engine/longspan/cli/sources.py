"""Which files the inputs stand for: files, folders, standard input."""

from __future__ import annotations

import codecs
import io
import os
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from ..errors import InputError
from .terminal import note

KINDS = {".txt": "text", ".md": "text", ".markdown": "text", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}
STANDARD_INPUT = "-"
BY_NAME = "auto"


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

    def open(self) -> BinaryIO:
        """Its bytes, from the start."""
        return io.BytesIO(self.data) if self.path is None else self.path.open("rb")


def find_sources(inputs: Sequence[str], exclude: Sequence[Path] = (), input_format: str = BY_NAME) -> list[Source]:
    """The files behind the inputs, in their order; folders recursively and sorted, without hidden files.

    Args:
        inputs: files, folders, or "-" for standard input.
        exclude: files and folders that are passed over inside folders: the output's own.
        input_format: the kind of the files given by name and of standard input, or "auto": by the files' suffixes, and
            text for standard input, which has no name. Files inside folders go by their suffixes in any case.

    Raises:
        InputError: a file is of no known kind, a folder holds none that is, or standard input is closed.
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
            sources.append(_standard_input(input_format))
        elif path.is_dir():
            sources += _folder(path, excluded)
        elif _real(path) in excluded:
            raise InputError(f"{_printable(path)} is both input and output")
        else:
            sources.append(_source(path, _kind(path) if input_format == BY_NAME else input_format))
    return sources


def _standard_input(input_format: str) -> Source:
    """All of it: where a run continues is decided by the contents."""
    if sys.stdin is None:
        raise InputError("standard input (-) is closed")
    data = sys.stdin.buffer.read()
    if input_format != BY_NAME:
        return Source(STANDARD_INPUT, input_format, len(data), 0, None, data)
    first = io.BytesIO(data).readline().removeprefix(codecs.BOM_UTF8).strip()
    if first.startswith(b'{"') and first.endswith(b"}"):
        note(
            "warning: standard input looks like JSONL, but is taken as one text; --input-format jsonl reads its "
            "records, --input-format text silences this"
        )
    return Source(STANDARD_INPUT, "text", len(data), 0, None, data)


def _folder(folder: Path, excluded: set[str]) -> list[Source]:
    found: list[Path] = []
    for at, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".") and _real(Path(at, name)) not in excluded]
        found += [Path(at, name) for name in files if not name.startswith(".")]
    paths = [path for path in found if _kind(path) and _real(path) not in excluded]
    if not paths:
        raise InputError(f"{_printable(folder)} holds no file that ends in {', '.join(KINDS)}")
    sources = []
    for path in sorted(paths, key=lambda path: path.parts):
        try:
            sources.append(_source(path, _kind(path)))
        except OSError:
            if not path.is_symlink():
                raise
            note(f"warning: passed over {_printable(path)}: a link to nothing")
    if not sources:
        raise InputError(f"{_printable(folder)} holds links to nothing only")
    return sources


def _kind(path: Path) -> str | None:
    return KINDS.get(path.suffix.lower())


def _real(path: Path) -> str:
    """Where it is, whatever links lead there; unlike `Path.resolve`, links in a circle are no error yet."""
    return os.path.realpath(path)


def _raise(error: OSError) -> None:
    raise error


def _source(path: Path, kind: str | None) -> Source:
    status = path.stat()
    if kind is None:
        known = ", ".join(KINDS)
        raise InputError(f"{_printable(path)} is of no known kind; a name must end in {known}, or give --input-format")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{_printable(path)} is not a regular file; standard input (-) takes pipes")
    return Source(_printable(path), kind, status.st_size, status.st_mtime_ns, path)


def _printable(path: Path) -> str:
    """The name as text; bytes that are not UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def as_now(sources: Sequence[Source]) -> list[Source]:
    """The same sources with the sizes and times that their files have now."""
    return [source if source.path is None else _source(source.path, source.kind) for source in sources]
