"""Inputs: which files are found, and what is read from them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from longspan import InputError
from longspan.cli import inputs
from longspan.cli.inputs import Columns, Document, grouped, read_documents
from longspan.cli.sources import as_now, find_sources


def read(path: Path, columns: Columns | None = None, *, skip: bool = False) -> tuple[list[tuple[str, str]], list[str]]:
    """Ids without the folder, and texts; and what is said of broken records."""
    errors: list[str] = []

    def broken(message: str) -> None:
        errors.append(message.removeprefix(f"{path.parent}{os.sep}"))
        if not skip:
            raise InputError(message)

    documents = read_documents(find_sources([str(path)]), columns or Columns(), broken)
    return [(document.id.removeprefix(f"{path.parent}{os.sep}"), document.text) for document in documents], errors


def written(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_text_keeps_every_character(tmp_path: Path) -> None:
    text = "a\r\nb\u2028c\r😀\x00d\n"
    assert read(written(tmp_path / "a.TXT", text.encode()))[0] == [("a.TXT", text)]
    assert read(written(tmp_path / "b.md", b"\xef\xbb\xbfbom"))[0] == [("b.md", "bom")]
    assert read(written(tmp_path / "c.markdown", b""))[0] == [("c.markdown", "")]


def test_folder(tmp_path: Path) -> None:
    """Recursive and sorted; hidden files, other kinds and the output are left out."""
    for name in ("b/z.txt", "b.md", "a.jsonl", "b/a.csv", ".git/x.txt", ".hidden.txt", "image.png", "o.jsonl"):
        written(tmp_path / name, b"")
    written(tmp_path / "o.jsonl.partial" / "x.txt", b"")
    sources = find_sources([str(tmp_path)], [tmp_path / "o.jsonl", tmp_path / "o.jsonl.partial"])
    names = [os.path.relpath(source.name, tmp_path) for source in sources]
    assert names == ["a.jsonl", "b/a.csv", "b/z.txt", "b.md"]


def test_input_format(tmp_path: Path) -> None:
    """It is for what is given by name, whatever the suffix; folders go by suffixes."""
    record, folder = written(tmp_path / "records.log", b'{"text": "a"}\n'), tmp_path / "folder"
    note = written(folder / "note.txt", b"plain")
    written(folder / "more.log", b"")
    sources = find_sources([str(record), str(folder)], input_format="jsonl")
    assert [(source.path, source.kind) for source in sources] == [(record, "jsonl"), (note, "text")]
    assert [document.text for document in read_documents(sources, Columns(), lambda _: None)] == ["a", "plain"]
    assert as_now(sources) == sources
    (source,) = find_sources([str(note)], input_format="csv")
    assert source.kind == "csv"


def test_what_cannot_be_an_input(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        find_sources([str(tmp_path / "absent.txt")])
    with pytest.raises(
        InputError, match=r"a\.pdf is of no known kind; a name must end in \.txt, .*, or give --input-f"
    ):
        find_sources([str(written(tmp_path / "a.pdf", b""))])
    with pytest.raises(InputError, match="holds no file that ends in"):
        find_sources([str(tmp_path)])
    with pytest.raises(InputError, match="is both input and output"):
        find_sources([str(tmp_path / "o.jsonl")], [tmp_path / "o.jsonl"])
    with pytest.raises(InputError, match="only once"):
        find_sources(["-", "-"])
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(InputError, match="is not a regular file"):
        find_sources([str(tmp_path / "pipe.txt")])
    with pytest.raises(InputError, match="the name of an input is empty"):
        find_sources([""])
    folder = tmp_path / "links"
    folder.mkdir()
    (folder / "loop.txt").symlink_to("loop.txt")
    with pytest.raises(OSError, match=r"Too many levels of symbolic links: .*loop\.txt"):
        find_sources([str(folder / "loop.txt")])
    with pytest.raises(InputError, match="links holds links to nothing only"):
        find_sources([str(folder)])


def test_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt"))
    path.write_bytes(b"text")
    (source,) = find_sources([str(tmp_path)])
    assert source.name == f"{tmp_path}/\\xff.txt"


def test_jsonl(tmp_path: Path) -> None:
    """Lines end at \\n alone; a mark at the start, CRLF and blank lines do no harm."""
    lines = ['\ufeff{"text": "a\u2028b"}\r', "", " ", '{"text": "\\ud83d\\ude00", "id": 7}', '{"id": "x", "text": ""}']
    path = written(tmp_path / "a.jsonl", "\n".join(lines).encode())
    assert read(path)[0] == [("a.jsonl:1", "a\u2028b"), ("a.jsonl:4", "😀"), ("a.jsonl:5", "")]
    path = written(tmp_path / "a.jsonl", "\n".join(lines[3:]).encode())
    assert read(path, Columns("text", "id"))[0] == [("7", "😀"), ("x", "")]


BROKEN = {
    b'{"text": "a"': "not JSON: Expecting ',' delimiter at column 13",
    b'{"text": "a"} x': "not JSON: Extra data at column 15",
    b"[1]": "not a JSON object",
    b'{"txt": "a"}': "no field 'text'; it has 'txt'",
    b"{}": "no field 'text'; it has none",
    b'{"text": null}': "the field 'text' is NoneType, expected a string",
    b'{"text": "\xff"}': "not UTF-8 (byte 0xff)",
    b'{"text": "a\\ud800"}': "not valid Unicode at character 1",
    b"[" * 100_000: "not JSON: maximum recursion depth exceeded",
}
if hasattr(sys, "get_int_max_str_digits"):  # before Python 3.10.7 integers have no limit, and the line is a good one
    BROKEN[b'{"text": "a", "n": ' + b"1" * 5000 + b"}"] = "not JSON: Exceeds the limit"


@pytest.mark.parametrize("line", BROKEN, ids=list(BROKEN.values()))
def test_broken_jsonl(tmp_path: Path, line: bytes) -> None:
    path = written(tmp_path / "a.jsonl", b'{"text": "good"}\n\n' + line + b'\n{"text": "last"}')
    with pytest.raises(InputError, match=r"a\.jsonl:3: "):
        read(path)
    documents, (error,) = read(path, skip=True)
    assert documents == [("a.jsonl:1", "good"), ("a.jsonl:4", "last")]
    assert error.startswith(f"a.jsonl:3: {BROKEN[line]}")


@pytest.mark.parametrize("value", ["null", "true", "1.5", "[]", json.dumps("x" * 2000)])
def test_broken_ids(tmp_path: Path, value: str) -> None:
    path = written(tmp_path / "a.jsonl", b'{"text": "a", "id": %s}\n' % value.encode())
    _, (error,) = read(path, Columns("text", "id"), skip=True)
    assert error.startswith("a.jsonl:1: the field 'id' ")


def test_csv(tmp_path: Path) -> None:
    """Quoted cells may hold line ends; a row's number is that of its first line."""
    data = '\ufeffid,text\r\n1,"a\nb, ""c"""\r\n\r\n2,d\u2028e\r\n3,\r\n'
    path = written(tmp_path / "a.csv", data.encode())
    assert read(path)[0] == [("a.csv:2", 'a\nb, "c"'), ("a.csv:5", "d\u2028e"), ("a.csv:6", "")]
    assert [name for name, _ in read(path, Columns("text", "id"))[0]] == ["1", "2", "3"]
    long = written(tmp_path / "long.csv", b"text\n" + b"x" * 1_000_000)  # the csv module's own limit is 131,072
    assert len(read(long)[0][0][1]) == 1_000_000


def test_broken_csv(tmp_path: Path) -> None:
    data = b'n,text\n1,a\n2\n3,b,c\n4,"d"e\n5,\xff\n6,f\n7,"open\n8,g\n'
    documents, errors = read(written(tmp_path / "a.csv", data), skip=True)
    assert documents == [("a.csv:2", "a"), ("a.csv:7", "f")]
    assert errors == [
        "a.csv:3: 1 cells where the header has 2",
        "a.csv:4: 3 cells where the header has 2",
        "a.csv:5: not CSV: ',' expected after '\"'",
        "a.csv:6: not valid Unicode at character 0",
        "a.csv:8: not CSV: unexpected end of data, and all lines up to 9 with it",
    ]
    for data, reason in ((b"", "it is empty"), (b"a,b\n1,2\n", "it has a, b")):
        _, errors = read(written(tmp_path / "b.csv", data), skip=True)
        assert errors == [f"b.csv:1: the header has no column 'text'; {reason}"]


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    documents, errors = read(written(tmp_path / "a.txt", b"one\ntwo\xfe\n"), skip=True)
    assert documents == []
    assert errors == ["a.txt:2: not UTF-8 (byte 0xfe)"]


def test_sizes_add_up(tmp_path: Path) -> None:
    """What the progress bar counts; what follows the last record is not counted."""
    data = b'{"text": "a"}\n\nbroken\n{"text": "b"}\n'
    sources = find_sources([str(written(tmp_path / "a.jsonl", data)), str(written(tmp_path / "b.csv", b"text\nab\n"))])
    sizes = [document.size for document in read_documents(sources, Columns(), lambda _: None)]
    assert sizes == [14, len(data) - 14, 8]


def test_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "GROUP_DOCUMENTS", 3)
    monkeypatch.setattr(inputs, "GROUP_CHARACTERS", 10)
    lengths = [1, 1, 1, 1, 9, 1, 20, 0, 0, 0, 0, 11]
    groups = [
        [len(document.text) for document in group]
        for group in grouped(Document("", "x" * length, length) for length in lengths)
    ]
    assert groups == [[1, 1, 1], [1, 9], [1], [20], [0, 0, 0], [0], [11]]
    assert list(grouped(iter(()))) == []
