"""`longspan search`."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from longspan import Encoder

Run = Callable[..., Any]

CATS = "Cats purr when they are content. They sleep for most of the day and hunt small birds at dawn."
RIVERS = "The river rises in the mountains and reaches the sea near an old harbour. Boats carry grain along it."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "cats.txt").write_text(f"{RIVERS}\n\n{CATS}\n")
    (tmp_path / "copy.md").write_text(CATS.replace(". ", ".\n"))
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": "Trains \x1b[31mstop here\x07."}) + "\n")
    return tmp_path


def test_passages(longspan: Run, minilm: Path, folder: Path) -> None:
    command = ("search", folder, "What do cats do?", "--model", minilm, "--chunk-tokens", 24)
    report = json.loads(longspan(*command, "--json").out)
    assert (report["question"], report["model"]) == ("What do cats do?", str(minilm))
    best, *others = report["passages"]
    assert 2 <= len(others) <= 4
    assert [passage["score"] for passage in others] == sorted((p["score"] for p in others), reverse=True)
    assert best["score"] > others[0]["score"]
    assert "Cats purr" in best["text"]
    for passage in report["passages"]:
        if not passage["file"].endswith(":1"):
            text = Path(passage["file"]).read_text()
            assert text[passage["start"] : passage["end"]] == passage["text"]
    texts = [" ".join(passage["text"].split()) for passage in report["passages"]]
    assert len(set(texts)) == len(texts)  # the copy's passages differ in line ends only
    encoder = Encoder(minilm)
    chunk = next(
        result for result in encoder.encode_chunks([(folder / Path(best["file"]).name).read_text()], chunk_tokens=24)
    )
    scores = encoder.similarity(encoder.encode_query("What do cats do?"), chunk.vectors)
    assert best["score"] == pytest.approx(float(scores.max()), abs=1e-6)


def test_lines(longspan: Run, minilm: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    ran = longspan("search", folder, "Where do trains stop?", "--model", minilm, "--top", 2)
    first, second, *rest = ran.out.splitlines()
    assert ran.err == ""
    assert first.startswith("1. 0.")
    assert first.endswith(f"{folder}/rows.jsonl:1  0-23")
    assert second == "   Trains [31mstop here ."  # no control character reaches the terminal
    assert all(len(line) <= 40 for line in rest if not line.startswith("2. "))
    assert sum(line[:2] in ("1.", "2.", "3.") for line in ran.out.splitlines()) == 2


def test_errors(longspan: Run, tiny: Path, folder: Path) -> None:
    assert longspan("search", folder, "  ", "--model", tiny).error == "the question is empty"
    assert longspan("search", folder, "\udcff", "--model", tiny).error.startswith("the question has a lone surrogate")
    assert "No such file" in longspan("search", folder / "a.txt", "cat", "--model", tiny).error
    (folder / "cats.txt").write_text("")
    assert longspan("search", folder / "cats.txt", "cat", "--model", tiny).error == "the files hold no text"
    (folder / "rows.jsonl").write_text('{"text": "cat"}\nbroken\n')
    command = ("search", folder / "rows.jsonl", "cat", "--model", tiny)
    assert f"{folder}/rows.jsonl:2: not JSON" in longspan(*command).error
    ran = longspan(*command, "--skip-errors")
    assert ran.code == 0
    warning = f"passed over {folder}/rows.jsonl:2: not JSON: Expecting value at column 1"
    assert ran.err == f"longspan: warning: {warning}\n"
    report = json.loads(longspan(*command, "--skip-errors", "--json").out)
    assert (report["skipped"], report["skipped_records"]) == (1, [warning.removeprefix("passed over ")])


def test_standard_input(longspan: Run, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b'{"text": "cat"}\n{"text": "dog fish"}\n'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    ran = longspan("search", "-", "dog fish", "--model", tiny, "--input-format", "jsonl", "--json")
    best, _ = json.loads(ran.out)["passages"]
    assert (best["file"], best["text"]) == ("-:2", "dog fish")


def test_windows_are_no_news(longspan: Run, minilm: Path, tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text(f"{RIVERS} {CATS}\n" * 20)
    ran = longspan("search", path, "Who purrs?", "--model", minilm)
    assert (ran.code, ran.err) == (0, "")
