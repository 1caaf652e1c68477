"""Inputs to documents: what is in text, Markdown, JSONL and CSV files, read lazily."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .sources import Source

GROUP_DOCUMENTS = 512
GROUP_CHARACTERS = 1 << 17
_LONGEST_ID = 1024
_LONGEST_CELL = 1 << 27  # characters; an open quote does not swallow more than that

Broken = Callable[[str], None]
"""Called for a record that cannot be used, with the reason; raises, or lets the reading go on."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text.

    Attributes:
        id: the file's name, with the line number for a record; or what the record itself has.
        text: its text.
        size: bytes of the input since the document before.
    """

    id: str
    text: str
    size: int


@dataclass(frozen=True, slots=True)
class Columns:
    """Where a record has its text and, unless it is numbered by line, its id."""

    text: str = "text"
    id: str | None = None


def read_documents(sources: Sequence[Source], columns: Columns, broken: Broken) -> Iterator[Document]:
    """The documents in order, one at a time in memory."""
    readers = {"jsonl": _read_jsonl, "csv": _read_csv}
    for source in sources:
        yield from readers[source.kind](source, columns, broken) if source.kind in readers else _text(source, broken)


def grouped(documents: Iterator[Document]) -> Iterator[list[Document]]:
    """The documents in groups whose bounds depend on nothing but the documents."""
    group: list[Document] = []
    characters = 0
    for document in documents:
        if group and (len(group) == GROUP_DOCUMENTS or characters + len(document.text) > GROUP_CHARACTERS):
            yield group
            group, characters = [], 0
        group.append(document)
        characters += len(document.text)
    if group:
        yield group


def _text(source: Source, broken: Broken) -> Iterator[Document]:
    with source.open() as file:
        data = file.read()
    try:
        yield Document(source.name, data.decode("utf-8-sig"), len(data))
    except UnicodeDecodeError as error:
        broken(f"{source.name}:{_line_of(error, data)}: {_not_utf8(error)}")


def _line_of(error: UnicodeDecodeError, data: bytes) -> int:
    return data.count(b"\n", 0, error.start) + 1


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"not UTF-8 (byte 0x{error.object[error.start]:02x})"


class _BadRecordError(Exception):
    """A record cannot be used; the message is the reason."""


def _read_jsonl(source: Source, columns: Columns, broken: Broken) -> Iterator[Document]:
    """Lines end at \\n alone: JSON strings may hold U+2028 and the like."""
    size = 0
    with source.open() as file:
        for number, line in enumerate(file, 1):
            size += len(line)
            place = f"{source.name}:{number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip()
                if not text:
                    continue
                document = _document(_json_object(text), columns, place, size)
            except UnicodeDecodeError as error:
                broken(f"{place}: {_not_utf8(error)}")
            except _BadRecordError as error:
                broken(f"{place}: {error}")
            else:
                size = 0
                yield document


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise _BadRecordError(f"not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:  # an integer of too many digits, absurd nesting
        raise _BadRecordError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise _BadRecordError("not a JSON object")
    return value


def _read_csv(source: Source, columns: Columns, broken: Broken) -> Iterator[Document]:
    csv.field_size_limit(_LONGEST_CELL)
    with source.open() as file:
        lines = _Lines(file)
        rows = _rows(csv.reader(lines, strict=True), source.name, broken)
        _, header = next(rows, (1, []))
        missing = [name for name in (columns.text, columns.id) if name is not None and name not in header]
        if missing:
            has = f"it has {', '.join(header)}" if header else "it is empty"
            broken(f"{source.name}:1: the header has no column {missing[0]!r}; {has}")
            return
        for number, row in rows:
            place = f"{source.name}:{number}"
            try:
                if len(row) != len(header):
                    raise _BadRecordError(f"{len(row)} cells where the header has {len(header)}")
                document = _document(dict(zip(header, row, strict=True)), columns, place, lines.size)
            except _BadRecordError as error:
                broken(f"{place}: {error}")
            else:
                lines.size = 0
                yield document


class _Lines:
    """A file's lines for the csv module; bytes that are not UTF-8 become lone surrogates, which `_document` refuses.

    Attributes:
        size: bytes read since it was last set to 0.
    """

    def __init__(self, file: Iterator[bytes]) -> None:
        self._file = file
        self._encoding = "utf-8-sig"
        self.size = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._file)
        self.size += len(line)
        encoding, self._encoding = self._encoding, "utf-8"
        return line.decode(encoding, "surrogateescape")


def _rows(reader: Any, name: str, broken: Broken) -> Iterator[tuple[int, list[str]]]:
    """Rows with the number of their first line; blank ones are left out."""
    while True:
        number = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            more = f", and all lines up to {reader.line_num} with it" if reader.line_num > number else ""
            broken(f"{name}:{number}: not CSV: {error}{more}")
            continue
        if row:
            yield number, row


def _document(record: dict[str, Any], columns: Columns, place: str, size: int) -> Document:
    name = place if columns.id is None else _id(record, columns.id)
    text = _field(record, columns.text)
    if not isinstance(text, str):
        raise _BadRecordError(f"the field {columns.text!r} is {type(text).__name__}, expected a string")
    for value in (text, name):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise _BadRecordError(f"not valid Unicode at character {error.start}") from None
    return Document(name, text, size)


def _field(record: dict[str, Any], name: str) -> Any:
    if name not in record:
        raise _BadRecordError(f"no field {name!r}; it has {', '.join(map(repr, list(record)[:8])) or 'none'}")
    return record[name]


def _id(record: dict[str, Any], name: str) -> str:
    value = _field(record, name)
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise _BadRecordError(f"the field {name!r} is {type(value).__name__}, expected a string or an integer")
    if len(str(value)) > _LONGEST_ID:
        raise _BadRecordError(f"the field {name!r} has {len(str(value))} characters, expected at most {_LONGEST_ID}")
    return str(value)
