"""Standard input: text unless told otherwise, records if so, and runs that continue by what it brings."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longspan import Encoder
from longspan.cli import groups, inputs

Run = Callable[..., Any]
Pipe = Callable[..., Any]
JSONL = (
    b'\xef\xbb\xbf{"text": "cat", "n": 1}\r\n\r\n{"text": "dog \xf0\x9f\x98\x80", "n": 2}\r\n{"text": "fish", "n": 3}'
)
CSV = b'\xef\xbb\xbfn,text\r\n1,cat\r\n2,"dog\r\nbird"\r\n'


@pytest.fixture
def pipe(longspan: Run, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipe:
    """Embeds bytes from standard input into out.npz."""

    def run(data: bytes, *more: object) -> Any:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        return longspan("embed", "-", "--model", tiny, "--output", tmp_path / "out.npz", *more)

    return run


def ids_of(path: Path) -> list[str]:
    with np.load(path) as arrays:
        ids: list[str] = arrays["ids"].tolist()
        return ids


def test_text(pipe: Pipe, tiny: Path, tmp_path: Path) -> None:
    assert pipe("\ufeffcat\r\ndog 😀".encode()).code == 0
    with np.load(tmp_path / "out.npz") as arrays:
        assert arrays["ids"].tolist() == ["-"]
        assert arrays["vectors"].tobytes() == Encoder(tiny).encode(["cat\r\ndog 😀"]).tobytes()


@pytest.mark.parametrize(
    ("kind", "data", "ids", "texts"),
    [
        ("jsonl", JSONL, ["-:1", "-:3", "-:4"], ["cat", "dog 😀", "fish"]),
        ("csv", CSV, ["-:2", "-:3"], ["cat", "dog\r\nbird"]),
    ],
)
def test_records(
    pipe: Pipe, tiny: Path, tmp_path: Path, kind: str, data: bytes, ids: list[str], texts: list[str]
) -> None:
    assert pipe(data, "--input-format", kind).err.endswith(f"{len(ids)} vectors of {len(ids)} documents\n")
    with np.load(tmp_path / "out.npz") as arrays:
        assert arrays["ids"].tolist() == ids
        assert arrays["vectors"].tobytes() == Encoder(tiny).encode(texts).tobytes()
    assert pipe(data, "--input-format", kind, "--id-field", "n", "--overwrite").code == 0
    assert ids_of(tmp_path / "out.npz") == [str(n + 1) for n in range(len(ids))]


def test_records_are_not_guessed(pipe: Pipe, tmp_path: Path) -> None:
    """They are one text, and a warning says so, unless that is what was asked for."""
    for data in (JSONL, JSONL.split(b"\r")[0]):
        first, summary = pipe(data, "--overwrite").err.splitlines()
        assert first.startswith("longspan: warning: standard input looks like JSONL, but is taken as one text; --input")
        assert "1 vector of 1 document" in summary
    assert "warning" not in pipe(JSONL, "--overwrite", "--input-format", "text").err
    for plain in (b"", b"{", b"{cat}\n{dog}", b'[{"text": "cat"}]', b'cat\n{"text": "dog"}\n'):
        assert "warning" not in pipe(plain, "--overwrite").err
        assert ids_of(tmp_path / "out.npz") == ["-"]


def test_broken_records(pipe: Pipe, tmp_path: Path) -> None:
    data = b'{"text": "cat"}\n[]\n{"text": 1}\n{"text": "dog"}'
    more = ("--input-format", "jsonl")
    assert pipe(data, *more).error == "-:2: not a JSON object (--skip-errors passes over such records)"
    lines = pipe(data, *more, "--skip-errors", "--overwrite").err.splitlines()
    assert lines[:2] == [
        "longspan: warning: passed over -:2: not a JSON object",
        "longspan: warning: passed over -:3: the field 'text' is int, expected a string",
    ]
    assert ids_of(tmp_path / "out.npz") == ["-:1", "-:4"]
    assert pipe(b'{\n  "text": "cat"\n}', *more, "--overwrite").error.startswith("-:1: not JSON: Expecting property")


def test_empty(pipe: Pipe) -> None:
    assert "1 vector of 1 document" in pipe(b"").err  # as an empty file is
    assert "0 vectors of 0 documents" in pipe(b"", "--input-format", "jsonl", "--overwrite").err
    ran = pipe(b"", "--input-format", "csv", "--overwrite")
    assert ran.error.startswith("-:1: the header has no column 'text'; it is empty")


def test_closed(longspan: Run, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)  # as Python has it after `<&-`
    ran = longspan("embed", "-", "--model", tiny, "--output", tmp_path / "out.npz")
    assert ran.error == "standard input (-) is closed"


def test_continued(pipe: Pipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the same bytes, read in the same way."""
    monkeypatch.setattr(inputs, "GROUP_DOCUMENTS", 1)
    embed, calls = groups.embed_group, iter(range(9))

    def stop(*arguments: Any) -> Any:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return embed(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(groups, "embed_group", stop)
        ran = pipe(JSONL, "--input-format", "jsonl")
    partial = tmp_path / "out.npz.partial"
    assert ran.code == 130
    assert ran.err.splitlines() == [
        f"longspan: the work so far is in {partial}; repeat the command, with the same standard input, to continue",
        "longspan: error: interrupted",
    ]
    assert pipe(JSONL + b"\n", "--input-format", "jsonl").error == (
        f"{partial} holds an interrupted run with other inputs; repeat that command to continue it, or give "
        "--overwrite to start over"
    )
    assert "an interrupted run with input-format jsonl instead of text" in pipe(JSONL, "--input-format", "text").error
    ran = pipe(JSONL, "--input-format", "jsonl", "--json")
    assert ran.err.splitlines() == ["longspan: continuing an interrupted run, 2 groups of documents done"]
    report = json.loads(ran.out)
    assert (report["resumed"], report["documents"]) == (True, 3)
    whole = (tmp_path / "out.npz").read_bytes()
    assert pipe(JSONL, "--input-format", "jsonl", "--overwrite").code == 0
    assert (tmp_path / "out.npz").read_bytes() == whole


def test_interrupted_while_reading(tiny: Path, tmp_path: Path) -> None:
    """Nothing is begun before all of it is there."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    source = """
        import io, signal, sys
        from longspan.cli.main import main

        class Waiting(io.RawIOBase):
            def readable(self):
                return True

            def readinto(self, buffer):
                print("reading", flush=True)
                return sys.__stdin__.buffer.raw.readinto(buffer)

        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.stdin = io.TextIOWrapper(io.BufferedReader(Waiting()))
        sys.exit(main(sys.argv[1:]))
    """
    lines = "\n".join(line[8:] for line in source.splitlines())
    command = [sys.executable, "-c", lines, "embed", "-", "--model", str(tiny), "--output", str(tmp_path / "out.npz")]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline() == b"reading\n"
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 130
        assert child.stderr.read() == b"longspan: error: interrupted\n"
    assert list(tmp_path.iterdir()) == []
