"""`longspan embed`: what comes out, in every format and precision, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longspan import Encoder, MemoryCeilingError
from longspan.cli import groups, inputs

Run = Callable[..., Any]
TEXTS = ["cat dog.", "", "bird " * 200, "fish. cat. dog. bird. a b c d e f g.", "dog", "naïve 😀 cat"]


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six documents in JSONL, read two at a time."""
    monkeypatch.setattr(inputs, "GROUP_DOCUMENTS", 2)
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text, "key": f"k{i}"}) + "\n" for i, text in enumerate(TEXTS)))
    return path


def same(a: Any, b: Any) -> bool:
    return bool(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().decode().split("\n")[:-1]]


@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
def test_npz(longspan: Run, tiny: Path, corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.npz"
    ran = longspan("embed", corpus, "--model", tiny, "--output", output, "--id-field", "key")
    assert (ran.code, ran.out) == (0, "")
    assert ran.err == (
        f"longspan: {output}: 6 vectors of 6 documents; 1 longer than the model's 64 tokens, in overlapping windows\n"
    )
    with np.load(output) as arrays:
        assert list(arrays) == ["vectors", "ids"]
        assert same(arrays["vectors"], Encoder(tiny).encode(TEXTS))
        assert arrays["ids"].tolist() == [f"k{i}" for i in range(6)]
    with zipfile.ZipFile(output) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.jsonl", "out.npz"]


def test_chunks(longspan: Run, tiny: Path, corpus: Path, tmp_path: Path) -> None:
    output, lines = tmp_path / "out.npz", tmp_path / "out.jsonl"
    command = ("embed", corpus, "--model", tiny, "--chunk-tokens", "8,3", "--quiet", "--output")
    assert longspan(*command, output).err == ""
    assert longspan(*command, lines).err == ""
    expected: list[tuple[int, int, int, tuple[int, int]]] = []
    vectors = []
    for document, result in enumerate(Encoder(tiny).encode_chunks(TEXTS, chunk_tokens=(8, 3))):
        for size, level in result.levels.items():
            expected += [(document, size, chunk, span) for chunk, span in enumerate(level.spans)]
            vectors += list(level.vectors)
    assert expected
    with np.load(output) as arrays:
        assert list(arrays) == ["vectors", "ids", "document", "spans", "chunk_tokens"]
        assert same(arrays["vectors"], np.stack(vectors))
        assert arrays["document"].tolist() == [row[0] for row in expected]
        assert arrays["chunk_tokens"].tolist() == [row[1] for row in expected]
        assert arrays["spans"].tolist() == [list(row[3]) for row in expected]
        assert len(arrays["ids"]) == len(TEXTS)
    rows = rows_of(lines)
    assert [list(row) for row in rows] == [["id", "chunk", "start", "end", "chunk_tokens", "embedding"]] * len(rows)
    found = [(row["id"], row["chunk_tokens"], row["chunk"], (row["start"], row["end"])) for row in rows]
    assert found == [(f"{corpus}:{row[0] + 1}", *row[1:]) for row in expected]
    assert same(np.array([row["embedding"] for row in rows], np.float32), np.stack(vectors))


@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
def test_precision(longspan: Run, tiny: Path, corpus: Path, tmp_path: Path, precision: Any) -> None:
    """int8 and uint8 are calibrated on all vectors, as sentence-transformers does it."""
    encoder = Encoder(tiny)
    encoder.calibrate(TEXTS)
    expected = encoder.encode(TEXTS, precision=precision)
    command = ("embed", corpus, "--model", tiny, "--precision", precision, "--output")
    assert longspan(*command, tmp_path / "out.npz").code == 0
    assert longspan(*command, tmp_path / "out.jsonl").code == 0
    with np.load(tmp_path / "out.npz") as arrays:
        assert same(arrays["vectors"], expected)
        if "int8" in precision:
            plain = encoder.encode(TEXTS)
            assert same(arrays["low"], plain.min(0))
            assert same(arrays["high"], plain.max(0))
    assert [row["embedding"] for row in rows_of(tmp_path / "out.jsonl")] == expected.tolist()


@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_calibrated_ranges_of_the_folder(longspan: Run, tiny: Path, tmp_path: Path, precision: Any) -> None:
    """They also do where the vectors themselves say nothing: of one text."""
    encoder = Encoder(tiny)
    encoder.calibrate(TEXTS)
    encoder.save(tmp_path / "model")
    text = tmp_path / "a.txt"
    text.write_text("cat dog")
    command = ("embed", text, "--model", tmp_path / "model", "--precision", precision)
    assert longspan(*command, "--output", tmp_path / "a.npz").code == 0
    with np.load(tmp_path / "a.npz") as arrays:
        assert same(arrays["vectors"], encoder.encode(["cat dog"], precision=precision))
        assert same(arrays["low"], encoder.ranges[16].low)
    ran = longspan(*command, "--output", tmp_path / "b.npz", "--truncate-dim", 5)  # of which there are none
    assert "by the vectors, at least 2; there is 1" in ran.error


def test_long_text_of_the_folder(longspan: Run, tiny: Path, tmp_path: Path) -> None:
    Encoder(tiny, long_text="error").save(tmp_path / "model")
    text = tmp_path / "a.txt"
    text.write_text("cat " * 100)
    command = ("embed", text, "--model", tmp_path / "model", "--output", tmp_path / "a.npz")
    assert "only 62 fit the model at once" in longspan(*command).error
    assert longspan(*command, "--long-text", "window").code == 0


def test_options_reach_the_encoder(longspan: Run, tiny: Path, corpus: Path, tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("cat dog")
    options = ("--prompt", "fish: ", "--truncate-dim", 5, "--normalize", "--threads", 1)
    assert longspan("embed", text, "--model", tiny, "--output", tmp_path / "a.npz", *options).code == 0
    expected = Encoder(tiny).encode(["cat dog"], prompt="fish: ", truncate_dim=5, normalize_embeddings=True)
    with np.load(tmp_path / "a.npz") as arrays:
        assert same(arrays["vectors"], expected)
    ran = longspan("embed", text, "--model", tiny, "--output", tmp_path / "b.npz", "--prompt-name", "none")
    assert "there is no prompt named 'none'" in ran.error
    assert not (tmp_path / "b.npz.partial").exists()


def test_long_text(longspan: Run, tiny: Path, corpus: Path, tmp_path: Path) -> None:
    command = ("embed", corpus, "--model", tiny, "--output", tmp_path / "out.npz", "--long-text")
    assert longspan(*command, "error").error == f"{corpus}:3 has 200 tokens, but only 62 fit the model at once"
    ran = longspan(*command, "truncate", "--overwrite")
    assert ran.err.endswith("6 vectors of 6 documents; 1 longer than the model's 64 tokens, cut there\n")
    with np.load(tmp_path / "out.npz") as arrays:
        assert same(arrays["vectors"][2], Encoder(tiny).encode("bird " * 62))
    ran = longspan(*command, "error", "--chunk-tokens", 8, "--overwrite")
    assert ran.error == f"{corpus}:3 has 200 tokens, but only 62 fit the model at once"


def test_nothing_to_embed(longspan: Run, tiny: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    assert longspan("embed", empty, "--model", tiny, "--output", tmp_path / "a.npz").code == 0
    with np.load(tmp_path / "a.npz") as arrays:
        assert (arrays["vectors"].shape, arrays["ids"].shape) == ((0, 16), (0,))
    blank = tmp_path / "blank.txt"
    blank.write_text(" \n")
    assert longspan("embed", blank, "--model", tiny, "--output", tmp_path / "b.npz", "--chunk-tokens", 4).code == 0
    with np.load(tmp_path / "b.npz") as arrays:
        assert (arrays["vectors"].shape, arrays["spans"].shape, arrays["ids"].shape) == ((0, 16), (0, 2), (1,))
    ran = longspan("embed", blank, "--model", tiny, "--output", tmp_path / "c.npz", "--precision", "int8")
    assert "by the vectors, at least 2; there is 1" in ran.error


def test_broken_records(longspan: Run, tiny: Path, corpus: Path, tmp_path: Path) -> None:
    lines = corpus.read_text().splitlines()
    corpus.write_text("\n".join([*lines[:3], "{broken", *lines[3:], "[]"]))
    command = ("embed", corpus, "--model", tiny, "--output", tmp_path / "out.npz")
    assert longspan(*command).error == (
        f"{corpus}:4: not JSON: Expecting property name enclosed in double quotes at column 2 (--skip-errors passes "
        "over such records)"
    )
    ran = longspan(*command, "--skip-errors")  # goes on with what the run before it did
    assert ran.code == 0
    first, broken, empty, summary = ran.err.splitlines()
    assert first == "longspan: continuing an interrupted run, 1 group of documents done"
    assert broken.startswith(f"longspan: warning: passed over {corpus}:4: not JSON: Expecting property name ")
    assert empty == f"longspan: warning: passed over {corpus}:8: not a JSON object"
    assert "6 vectors of 6 documents" in summary


def test_many_broken_records(longspan: Run, tiny: Path, tmp_path: Path) -> None:
    """The first ten are named, the others counted."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "cat"}\n' + "[]\n" * 1200)
    command = ("embed", path, "--model", tiny, "--output", tmp_path / "out.npz", "--skip-errors", "--quiet")
    lines = longspan(*command).err.splitlines()
    assert lines[:10] == [f"longspan: warning: passed over {path}:{n}: not a JSON object" for n in range(2, 12)]
    assert lines[10:] == ["longspan: warning: passed over 1,190 more, 1,200 broken records in all"]


# --- parquet -------------------------------------------------------------------------------------------------------


def test_parquet_is_missing(
    longspan: Run, tiny: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pyarrow" else find(name))
    ran = longspan("embed", corpus, "--model", tiny, "--output", tmp_path / "out.parquet")
    assert ran.error == "Parquet needs pyarrow: pip install 'longspan[arrow]'"


@pytest.mark.parametrize("precision", ["float32", "uint8", "binary"])
@pytest.mark.parametrize("chunks", [(), ("--chunk-tokens", "3"), ("--chunk-tokens", "8,3")])
def test_parquet(
    longspan: Run, tiny: Path, corpus: Path, tmp_path: Path, precision: str, chunks: tuple[str, ...]
) -> None:
    """The same rows as JSONL."""
    parquet: Any = pytest.importorskip("pyarrow.parquet")
    command = ("embed", corpus, "--model", tiny, *chunks, "--precision", precision, "--output")
    assert longspan(*command, tmp_path / "out.parquet").code == 0
    assert longspan(*command, tmp_path / "out.jsonl").code == 0
    table = parquet.read_table(tmp_path / "out.parquet")
    found, expected = table.to_pylist(), rows_of(tmp_path / "out.jsonl")
    if precision == "float32":
        assert same(*(np.array([row.pop("embedding") for row in rows], np.float32) for rows in (found, expected)))
    assert found == expected
    assert (b"low" in (table.schema.metadata or {})) == (precision == "uint8")


# --- what is refused -----------------------------------------------------------------------------------------------


def test_output(longspan: Run, tiny: Path, corpus: Path, tmp_path: Path) -> None:
    def error(output: Path, *more: object) -> Any:
        return longspan("embed", corpus, "--model", tiny, "--output", output, *more).error

    assert "the format is not clear from the name; give --format npz or jsonl" in error(tmp_path / "out")
    assert error(tmp_path / "absent" / "out.npz") == f"the folder {tmp_path / 'absent'} does not exist"
    assert error(tmp_path, "--format", "npz") == f"{tmp_path} is a folder"
    assert error(corpus, "--overwrite") == f"{corpus} is both input and output"
    os.mkfifo(tmp_path / "pipe.npz")
    for more in ((), ("--overwrite",)):
        assert "is a device, a pipe or a socket, which --overwrite would remove" in error(tmp_path / "pipe.npz", *more)
    assert (tmp_path / "pipe.npz").is_fifo()
    (tmp_path / "out.npz").write_text("precious")
    assert error(tmp_path / "out.npz") == f"{tmp_path / 'out.npz'} exists; give --overwrite to replace it"
    assert (tmp_path / "out.npz").read_text() == "precious"
    assert not (tmp_path / "out.npz.partial").exists()
    assert longspan("embed", corpus, "--model", tiny, "--output", tmp_path / "out", "--format", "jsonl").code == 0
    assert len(rows_of(tmp_path / "out")) == 6


def test_model(longspan: Run, corpus: Path, tmp_path: Path) -> None:
    ran = longspan("embed", corpus, "--model", tmp_path, "--output", tmp_path / "out.npz")
    assert ran.error.startswith(f"{tmp_path} is not a model")
    ran = longspan("embed", tmp_path / "a.txt", "--model", tmp_path, "--output", tmp_path / "out.npz")
    assert ran.error == f"{tmp_path / 'a.txt'}: No such file or directory"


# --- an interrupted run --------------------------------------------------------------------------------------------


class Stop(BaseException):
    """Ends a run as nothing else does."""


@pytest.fixture
def interrupted(longspan: Run, tiny: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The command of a run that was ended after two groups of three."""
    command = ["embed", corpus, "--model", tiny, "--output", tmp_path / "out.npz"]
    embed, calls = groups.embed_group, iter(range(9))

    def stop(*arguments: Any) -> Any:
        if next(calls) == 2:
            raise Stop
        return embed(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(groups, "embed_group", stop)
        with pytest.raises(Stop):
            longspan(*command)
    assert not (tmp_path / "out.npz").exists()
    return command


def test_continued(
    longspan: Run, interrupted: list[Any], tiny: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    embed = groups.embed_group

    def counted(*arguments: Any) -> Any:
        sizes.append(len(arguments[2]))
        return embed(*arguments)

    monkeypatch.setattr(groups, "embed_group", counted)
    ran = longspan(*interrupted, "--threads", 1)  # threads change no bits
    assert ran.err.splitlines()[0] == "longspan: continuing an interrupted run, 2 groups of documents done"
    assert sizes == [2]
    assert longspan("embed", corpus, "--model", tiny, "--output", tmp_path / "whole.npz").code == 0
    assert (tmp_path / "whole.npz").read_bytes() == (tmp_path / "out.npz").read_bytes()


def test_changed_command(longspan: Run, interrupted: list[Any], corpus: Path, tmp_path: Path) -> None:
    partial = tmp_path / "out.npz.partial"
    assert longspan(*interrupted, "--chunk-tokens", 4).error == (
        f"{partial} holds an interrupted run with chunk-tokens none instead of 4; repeat that command to continue it, "
        "or give --overwrite to start over"
    )
    corpus.write_text(corpus.read_text() + "\n")
    assert "an interrupted run with other inputs; repeat" in longspan(*interrupted).error
    ran = longspan(*interrupted, "--overwrite")
    assert ran.code == 0
    assert "continuing" not in ran.err
    assert not partial.exists()


def test_damaged_shard(longspan: Run, interrupted: list[Any], tmp_path: Path) -> None:
    shard = tmp_path / "out.npz.partial" / "00000001.npz"
    shard.write_bytes(shard.read_bytes()[:-30])
    assert longspan(*interrupted).error.startswith(f"{shard} is damaged")


@pytest.mark.parametrize("content", ["{", "[1]", "null", "\udcff"])
def test_damaged_manifest(longspan: Run, interrupted: list[Any], tmp_path: Path, content: str) -> None:
    manifest = tmp_path / "out.npz.partial" / "manifest.json"
    manifest.write_bytes(content.encode(errors="surrogateescape"))
    assert longspan(*interrupted).error == f"{manifest} is damaged; remove the folder"


def test_input_that_changes_meanwhile(
    longspan: Run, tiny: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = groups.embed_group
    monkeypatch.setattr(groups, "embed_group", lambda *a: (corpus.open("a").write("\n"), embed(*a))[1])
    ran = longspan("embed", corpus, "--model", tiny, "--output", tmp_path / "out.npz")
    assert ran.error.startswith("the inputs changed while they were read")
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (MemoryError("of this much"), "out of memory: of this much"),
        (MemoryError(), "out of memory"),
        (MemoryCeilingError("memory is 1 MiB"), "memory is 1 MiB"),
    ],
)
def test_memory_that_runs_out(
    longspan: Run, tiny: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Any, said: str
) -> None:
    """What was done is kept, and another ceiling continues it: the output does not depend on any."""
    output, encode, calls = tmp_path / "out.npz", Encoder.encode, []

    def failing(self: Encoder, *args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise failure
        return encode(self, *args, **options)

    command = ("embed", corpus, "--model", tiny, "--output", output)
    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "encode", failing)
        ran = longspan(*command)
    assert ran.error == said
    assert f"the work so far is in {output}.partial; repeat the command to continue" in ran.err
    ran = longspan(*command, "--memory", "2TiB")
    assert ran.err.startswith("longspan: continuing an interrupted run, 1 group of documents done\n")
    with np.load(output) as arrays:
        assert same(arrays["vectors"], Encoder(tiny).encode(TEXTS))
