"""The corpus that is made on the fly, and the memory benchmark on a little of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks import corpus, stream
from benchmarks.__main__ import main

KIB = 1024


def test_corpus_is_the_same_again_and_of_its_size() -> None:
    texts = list(corpus.synthetic(100_000))
    assert texts == list(corpus.synthetic(100_000))
    assert texts != list(corpus.synthetic(100_000, seed=1))
    assert sum(map(len, texts)) == 100_000
    words = sorted(len(text.split()) for text in texts[:-1])
    assert 40 < words[len(words) // 2] < 80
    assert words[0] < 20
    assert words[-1] > 150


def test_huge_texts() -> None:
    texts = list(corpus.synthetic(100_000, text_characters=30_000))
    assert len(texts) == 4
    assert all(30_000 <= len(text) < 50_000 for text in texts[:-1])
    assert "\n\n".join(texts) == "\n\n".join(corpus.synthetic(100_000))


def test_table() -> None:
    samples = [stream.Sample(float(i), 10 * i, 100 * KIB * KIB, (100 + i) * KIB * KIB) for i in range(11)]
    run = stream.Run("a case", 3, 4, samples)
    assert [run.peak_after(share) >> 20 for share in (0, 0.25, 0.5, 1)] == [100, 103, 105, 110]
    words = stream.table([run]).splitlines()[-1].split()
    assert words[-9:] == ["103", "MiB", "105", "MiB", "110", "MiB", "10", "MiB", "+4.8%"]


@pytest.mark.slow
def test_runs(tmp_path: Path, minilm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out.json"
    command = ["stream", "--model", str(minilm), "--size", "0.05", "--text-size", "0.02", "--output", str(output)]
    assert main(command) == 0
    runs = {run["name"]: run for run in json.loads(output.read_text())["runs"]}
    assert list(runs) == ["paragraphs, vectors", "paragraphs, chunks", "huge texts, vectors", "huge texts, chunks"]
    assert runs["paragraphs, vectors"]["texts"] == runs["paragraphs, vectors"]["vectors"] > 50
    assert runs["huge texts, vectors"]["vectors"] == 3
    assert runs["huge texts, chunks"]["vectors"] > 30
    for run in runs.values():
        assert 50_000 <= run["samples"][-1]["characters"] < 51_000  # blank lines join paragraphs
        assert all(20 << 20 < sample["resident"] <= sample["peak"] for sample in run["samples"])
    assert "huge texts, chunks" in capsys.readouterr().out
