"""`python -m benchmarks long` from folders to files, with the real model on tiny sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import __main__
from benchmarks.long import chunked

from longspan import Encoder

from .conftest import CLAUSES

DOCUMENTS = ("\n\n".join(CLAUSES * 4), CLAUSES[1])


def run(*arguments: object) -> int:
    return __main__.main(["long", *map(str, arguments)])


def test_all_three_sets(cuad: Path, chunking_eval: Path, scifact: Path, tmp_path: Path, minilm: Path) -> None:
    output = tmp_path / "out" / "long.json"
    code = run(
        *("--cuad", cuad, "--chunking-eval", chunking_eval, "--scifact", scifact, "--model", minilm),
        *("--chunk-tokens", "8,16", "--windows", "32,64", "--overlaps", "0,50", "--blends", "--titles"),
        *("--resamples", "50", "--output", output),
    )  # fmt: skip
    assert code == 0
    record = json.loads(output.read_text())
    assert record["documents"] == {"cuad": 3, "chunking_eval": 2, "scifact": 3}
    assert record["questions"] == {"cuad": 2, "cuad, all contracts": 2, "chunking_eval": 2, "scifact": 2}
    rows = record["rows"]
    blends = {"naive + neighbours", "naive + late", "naive + document", "late + document"}
    of_chunks = {"naive", "naive, no special tokens", "late", *blends}
    wholes = {"whole document, cut off", "whole document, windows"}
    assert methods(rows, "chunking_eval") == of_chunks  # its corpora have no titles
    assert methods(rows, "cuad") == {*of_chunks, "naive + title", "late + title"}
    assert methods(rows, "scifact") == {*of_chunks, "naive + title", "late + title", *wholes}
    late = [row for row in rows if row["task"] == "cuad" and row["method"] == "late"]
    assert {(row["size"], row["setting"]["window"], row["setting"]["overlap"]) for row in late} == {
        (size, window, overlap) for size in (8, 16) for window in (32, 64) for overlap in (0, 50)
    }
    for row in rows:
        assert (row["changes"] == {}) == (row["method"] in ("naive", "whole document, cut off"))
        assert all(0 <= value <= 100 for value in row["means"].values())
    found = {row["method"]: row["means"]["nDCG@10"] for row in rows if row["task"] == "scifact"}
    assert found["whole document, cut off"] > 90  # the clauses are about different things
    tables = output.with_suffix(".md").read_text()
    assert tables.count("### ") == 4
    assert "| 8 | late | 32 | 50 % |" in tables


def methods(rows: list[dict[str, Any]], task: str) -> set[str]:
    return {row["method"] for row in rows if row["task"] == task}


def test_plots(chunking_eval: Path, tmp_path: Path, minilm: Path) -> None:
    pytest.importorskip("matplotlib")
    run("--chunking-eval", chunking_eval, "--model", minilm, "--chunk-tokens", "8", "--output", tmp_path / "x.json")
    assert (tmp_path / "x-chunking_eval.png").read_bytes().startswith(b"\x89PNG")


def test_alone_is_what_encode_gives_and_late_is_what_encode_chunks_gives(minilm: Path) -> None:
    encoder = Encoder(minilm)
    late = chunked.late_pass(encoder, DOCUMENTS, (8, 32), chunked.Setting(64, 25))
    plain = Encoder(minilm, max_seq_length=64)
    first, second = (plain.encode_chunks(text, chunk_tokens=(8, 32), window_overlap=15) for text in DOCUMENTS)
    cut = late.cuts[32]
    assert list(zip(cut.starts.tolist(), cut.ends.tolist(), strict=True)) == [
        *first.levels[32].spans,
        *second.levels[32].spans,
    ]
    assert cut.first.tolist() == [0, len(first.levels[32]), len(first.levels[32]) + len(second.levels[32])]
    assert np.allclose(
        late.chunks[32], np.concatenate([first.levels[32].vectors, second.levels[32].vectors]), atol=1e-6
    )
    assert np.allclose(late.documents, [first.vector, second.vector], atol=1e-6)

    alone, bare = chunked.alone(encoder, DOCUMENTS, cut, 256)
    texts = [document.levels[32].text(i) for document in (first, second) for i in range(len(document.levels[32]))]
    assert np.allclose(alone, Encoder(minilm).encode(texts), atol=1e-6)
    # A document of one chunk has no context: alone without special tokens and late are the same.
    assert np.allclose(bare[-1], late.chunks[32][-1], atol=1e-6)
    assert not np.allclose(bare[0], late.chunks[32][0], atol=1e-2)


def test_titles_are_context_but_no_chunk(minilm: Path) -> None:
    encoder = Encoder(minilm)
    setting = chunked.Setting(64, 25)
    plain = chunked.late_pass(encoder, DOCUMENTS, (16,), setting)
    titled = chunked.late_pass(encoder, DOCUMENTS, (16,), setting, ("Supply agreement", ""))
    assert titled.cuts[16].same(plain.cuts[16])
    last = int(plain.cuts[16].first[1])
    assert not np.allclose(titled.chunks[16][:last], plain.chunks[16][:last], atol=1e-3)
    assert np.allclose(titled.chunks[16][last:], plain.chunks[16][last:], atol=1e-6)
    vectors, _ = chunked.alone(encoder, DOCUMENTS, plain.cuts[16], 256, ("Supply agreement", ""))
    text = DOCUMENTS[0][: plain.cuts[16].ends[0]]
    assert np.allclose(vectors[0], encoder.encode(f"Supply agreement\n{text}"), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name a folder with --cuad"),
        (("--cuad", "/nowhere"), r"docs.jsonl is missing"),
    ],
)
def test_problems_end_in_one_line(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str], minilm: Path
) -> None:
    assert run(*arguments, "--model", minilm) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_windows_that_the_model_cannot_see(
    cuad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], minilm: Path
) -> None:
    assert run("--cuad", cuad, "--model", minilm, "--windows", "4096", "--output", tmp_path / "x.json") == 2
    assert "max_seq_length is 4096" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [("--windows", "0"), ("--overlaps", "100"), ("--chunk-tokens", "8,x")])
def test_numbers_out_of_range(arguments: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(*arguments)
    assert "is not a whole number" in capsys.readouterr().err
