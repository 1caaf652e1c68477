"""`longspan embed --json`: one document on standard output, and the numbers in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longspan import Encoder
from longspan.cli import inputs
from longspan.cli.shards import Journal

Run = Callable[..., Any]
TEXTS = ["cat dog.", "", "bird " * 200, "a b c d.", "fish " * 62, "fish " * 63]
TOKENS, LONG = 3 + 0 + 200 + 5 + 62 + 63, 2  # the model sees 62 tokens at a time


@pytest.fixture
def command(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Six documents in groups of two, to out.npz."""
    monkeypatch.setattr(inputs, "GROUP_DOCUMENTS", 2)
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return ["embed", path, "--model", tiny, "--output", tmp_path / "out.npz", "--json"]


def report_of(ran: Any) -> dict[str, Any]:
    assert (ran.code, ran.err) == (0, "")
    report: dict[str, Any] = json.loads(ran.out)
    return report


def test_everything(longspan: Run, command: list[Any], tiny: Path, tmp_path: Path) -> None:
    report = report_of(longspan(*command))
    assert 0 < report.pop("seconds") < 60
    assert report == {
        "output": str(tmp_path / "out.npz"),
        "format": "npz",
        "model": str(tiny),
        "dimension": 16,
        "precision": "float32",
        "chunk_tokens": None,
        "max_seq_length": 64,
        "long_text": "window",
        "resumed": False,
        "documents": 6,
        "vectors": 6,
        "tokens": TOKENS,
        "long_documents": LONG,
        "skipped": 0,
        "skipped_records": [],
    }


@pytest.mark.parametrize("chunks", [(), ("--chunk-tokens", "8,3")])
@pytest.mark.parametrize("policy", ["window", "truncate", "folder"])
def test_long_documents(
    longspan: Run, command: list[Any], tiny: Path, tmp_path: Path, policy: str, chunks: tuple[str, ...]
) -> None:
    """What was cut is counted, also where a saved model says to cut; its tokens are not, where nobody needs them."""
    if policy == "folder":
        Encoder(tiny, long_text="truncate").save(tmp_path / "model")
        command[command.index(tiny)] = tmp_path / "model"
    more = () if policy == "folder" else ("--long-text", policy)
    report = report_of(longspan(*command, *chunks, *more))
    assert report["long_text"] == ("window" if policy == "window" else "truncate")
    assert report["long_documents"] == LONG
    assert report["tokens"] == (TOKENS if policy == "window" else None)
    assert report["chunk_tokens"] == ([8, 3] if chunks else None)
    with np.load(tmp_path / "out.npz") as arrays:
        assert report["vectors"] == len(arrays["vectors"])
    command.remove("--json")
    done = "in overlapping windows" if policy == "window" else "cut there"
    ran = longspan(*command, *chunks, *more, "--overwrite")
    assert ran.err.endswith(f"; {LONG} longer than the model's 64 tokens, {done}\n")


def test_dimension_of_bits(longspan: Run, command: list[Any]) -> None:
    report = report_of(longspan(*command, "--precision", "binary", "--truncate-dim", 8))
    assert (report["dimension"], report["precision"]) == (8, "binary")


@pytest.mark.parametrize("name", ["inputs[9]", "documents[0]"])
@pytest.mark.parametrize("chunks", [(), ("--chunk-tokens", "4")])
def test_messages_keep_the_users_words(longspan: Run, command: list[Any], name: str, chunks: tuple[str, ...]) -> None:
    ran = longspan(*command, "--prompt-name", name, *chunks)
    assert ran.code == 2
    assert f"there is no prompt named '{name}'" in ran.err


def test_links_to_nothing(longspan: Run, command: list[Any], tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "a.txt").write_text("some words")
    (folder / "b.txt").symlink_to(tmp_path / "gone.txt")
    command[1] = folder
    ran = longspan(*command)
    assert json.loads(ran.out)["documents"] == 1
    assert f"warning: passed over {folder / 'b.txt'}: a link to nothing" in ran.err


def test_output_is_a_file(longspan: Run, command: list[Any]) -> None:
    command[command.index("--output") + 1] = "-"
    assert "the output is a file" in longspan(*command, "--format", "jsonl").err


def test_skipped(longspan: Run, command: list[Any]) -> None:
    path = command[1]
    path.write_text("".join(line + "[]\n" for line in path.read_text().splitlines(keepends=True) * 2))
    ran = longspan(*command, "--skip-errors", "--quiet")
    report = json.loads(ran.out)
    assert (report["documents"], report["skipped"]) == (12, 12)
    assert report["skipped_records"] == [f"{path}:{number}: not a JSON object" for number in range(2, 22, 2)]
    assert len(ran.err.splitlines()) == 11


def test_errors(longspan: Run, command: list[Any], tmp_path: Path) -> None:
    """Exit code 2, one line on standard error, nothing on standard output."""
    command[1].write_text('{"text": "cat"}\n[]\n')
    for more in ((), ("--quiet",), ("--precision", "int8"), ("--format", "xml"), ("--input-format", "xml")):
        ran = longspan(*command, *more)
        assert ran.error
        assert len(ran.err.splitlines()) == 1
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize("place", ["result", "lock"])
def test_killed_while_tidying_up(
    longspan: Run, command: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """The run that follows tells all the same, though shards may be gone."""
    command[1].write_text(command[1].read_text() + "[]\n")
    expected = json.loads(longspan(*command, "--skip-errors").out)
    (tmp_path / "out.npz").unlink()

    class Stop(BaseException):
        """Ends a run as nothing else does."""

    replace = os.replace

    def stop_before_the_last(source: Path, target: Path) -> None:
        if target == tmp_path / "out.npz":
            raise Stop
        replace(source, target)

    def stop_after_the_shards(journal: Journal) -> None:
        journal._clear()
        raise Stop

    with monkeypatch.context() as patch:
        if place == "result":
            patch.setattr(os, "replace", stop_before_the_last)
        else:
            patch.setattr(Journal, "remove", stop_after_the_shards)
        with pytest.raises(Stop):
            longspan(*command, "--skip-errors")
    assert (tmp_path / "out.npz").exists() == (place == "lock")
    ran = longspan(*command, "--skip-errors")
    assert ran.err == f"longspan: warning: passed over {command[1]}:7: not a JSON object\n"
    assert json.loads(ran.out) | {"seconds": 0} == expected | {"resumed": True, "seconds": 0}
    assert not (tmp_path / "out.npz.partial").exists()


def test_name_that_is_not_utf8(longspan: Run, command: list[Any], tmp_path: Path) -> None:
    output = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.npz"))
    command[command.index(tmp_path / "out.npz")] = output
    assert report_of(longspan(*command))["output"] == str(output)


def test_closed_standard_error(command: list[Any]) -> None:
    """What would be said there does not get into the document."""
    command[1].write_text(command[1].read_text() + "[]\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    arguments = [sys.executable, "-m", "longspan", *map(str, command), "--skip-errors"]
    run = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", *arguments], env=environment, stdout=subprocess.PIPE, timeout=60
    )
    assert run.returncode == 0
    assert json.loads(run.stdout)["skipped"] == 1


def test_broken_pipe(without_reader: Callable[..., None], command: list[Any], tmp_path: Path) -> None:
    """The output is whole before its reader is found gone."""
    without_reader(*command)
    assert (tmp_path / "out.npz").exists()
    assert not (tmp_path / "out.npz.partial").exists()
