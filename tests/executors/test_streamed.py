"""Weights that come from a file while the program runs: the same bits whatever stays in memory; every fault named."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.tiny import bert_shapes
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from longspan import CheckpointError, Encoder, _csrc
from longspan.batch import Float32, PackedBatch
from longspan.executors import cpu
from longspan.executors.cpu import CpuExecutor
from longspan.executors.ways import SMALL_TILE_ROWS, Way
from longspan.pooling.partials import document_partials
from longspan.weights import Format

HUGE = 1 << 50
INNER, LAYERS = 96, 5
TEXTS = [
    "The weather is lovely today.",
    "",
    "So sunny outside! " * 30,
    "He drove to the stadium. " * 80,
    "A river.",
] * 3


@pytest.fixture(scope="module")
def source(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of five layers, of random weights, that sees 512 tokens."""
    folder = tmp_path_factory.mktemp("source")
    config = json.loads((small / "config.json").read_text()) | {"num_hidden_layers": LAYERS, "intermediate_size": INNER}
    for path in small.iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            (folder / path.name).symlink_to(path)
    (folder / "config.json").write_text(json.dumps(config))
    random = np.random.default_rng(3)
    save_file(
        {name: random.normal(0, 0.2, shape).astype(np.float32) for name, shape in bert_shapes(config).items()},
        folder / "model.safetensors",
    )
    return folder


@pytest.fixture(scope="module")
def saved(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in int8, saved."""
    folder = tmp_path_factory.mktemp("saved") / "int8"
    Encoder(source, device="cpu", weights="int8").save(folder)
    return folder


def streaming(folder: Path, threads: int = 2, **options: Any) -> Encoder:
    """An encoder whose ceiling is no matter, so that the way is ours to choose."""
    return Encoder(folder, device="cpu", memory=HUGE, threads=threads, **options)


def executor_of(encoder: Encoder) -> CpuExecutor:
    executor = encoder._pipeline.executor
    assert isinstance(executor, CpuExecutor)
    return executor


def batch_of(encoder: Encoder) -> PackedBatch:
    pipeline = encoder._pipeline
    documents = [pipeline.windowed(tokens, 512) for tokens in pipeline.tokenize(TEXTS, "", offsets=False)]
    packed = pipeline.pack(documents)
    partials = tuple(document_partials(packed, mode, include_prompt=True) for mode in pipeline.modes)
    return PackedBatch(packed.ids, packed.positions, packed.cu_seqlens, partials)


def pooled(encoder: Encoder, way: Way | None = None) -> bytes:
    executor, batch = executor_of(encoder), batch_of(encoder)
    found: tuple[Float32, ...] = executor.run_body(batch) if way is None else executor.run_way(batch, way)
    return found[0].tobytes()


ways = st.builds(
    Way,
    schedule=st.sampled_from(("auto", "packs", "shared")),
    pack_tokens=st.none() | st.integers(1, 700),
    tile_rows=st.sampled_from((SMALL_TILE_ROWS, 96)),
    kept=st.none() | st.integers(0, LAYERS + 3),
)


@pytest.mark.parametrize("threads", [1, 3])
def test_every_way_gives_the_same_bits(saved: Path, threads: int) -> None:
    exact = pooled(Encoder(saved, device="cpu", threads=2))
    encoder = streaming(saved, threads)

    @settings(max_examples=40, deadline=None)
    @given(way=ways)
    def check(way: Way) -> None:
        assert pooled(encoder, way) == exact

    check()


@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8"])
def test_weights_packed_into_a_file(source: Path, weights: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a checkpoint without panels, where they leave no room; samples run through the file too."""
    exact = pooled(Encoder(source, device="cpu", weights=weights))
    monkeypatch.setattr(cpu, "packed_bytes", lambda *_: 1 << 60)
    encoder = streaming(source, weights=weights)
    executor = executor_of(encoder)
    assert sum(executor._stage_bytes) > 0
    assert executor._program.weight_bytes < 70 * 4096 * LAYERS  # biases and norms, a page each
    for kept in (None, 0, 3):
        assert pooled(encoder, Way(kept=kept)) == exact


def test_saved_again(source: Path, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    streaming(saved).save(tmp_path / "from panels")
    monkeypatch.setattr(cpu, "packed_bytes", lambda *_: 1 << 60)
    streaming(source, weights="int8").save(tmp_path / "from a file")
    name = "longspan.safetensors"
    for folder in ("from panels", "from a file"):
        assert (tmp_path / folder / name).read_bytes() == (saved / name).read_bytes()


def test_what_is_in_memory(saved: Path) -> None:
    encoder = streaming(saved)
    executor = executor_of(encoder)
    assert executor._streamed is not None
    stream, sizes = executor._streamed.stream, executor._stage_bytes
    assert len(sizes) == LAYERS + 2
    assert sizes[0] == sizes[-1] == 0
    assert stream.resident_bytes == 0
    for kept in (3, 1, LAYERS + 2, 0):
        pooled(encoder, Way(kept=kept))
        assert stream.resident_bytes == sum(sizes[:kept])
    pooled(encoder, Way())
    assert stream.resident_bytes == sum(sizes)


# --- faults ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    """A copy of the saved folder, whose file may be spoilt."""
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def spoil(path: Path, how: str) -> None:
    if how == "shrink":
        os.truncate(path, path.stat().st_size // 2)
    elif how == "write":
        os.utime(path, ns=(1, 1))
    elif how == "vanish":
        path.unlink()
    else:
        other = path.with_name("other")
        other.write_bytes(path.read_bytes())
        other.rename(path)


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ("shrink", r"had \d+ bytes when the model was loaded and has \d+ now"),
        ("write", "was written to since the model was loaded"),
    ],
)
def test_a_file_that_changes_between_runs(copied: Path, how: str, what: str) -> None:
    path = copied / "longspan.safetensors"
    resident, streamed = Encoder(copied, device="cpu"), streaming(copied)
    spoil(path, how)
    for encoder in (resident, streamed):
        with pytest.raises(CheckpointError, match=f"^{re.escape(str(path))} {what}"):
            encoder.encode(TEXTS)


@pytest.mark.parametrize("how", ["vanish", "replace"])
def test_a_file_that_leaves_its_place(copied: Path, how: str) -> None:
    """What is mapped or open is the old one still."""
    resident, streamed = Encoder(copied, device="cpu"), streaming(copied)
    exact = resident.encode(TEXTS).tobytes()
    spoil(copied / "longspan.safetensors", how)
    assert resident.encode(TEXTS).tobytes() == streamed.encode(TEXTS).tobytes() == exact


def test_a_file_that_shrinks_during_a_run(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check before the run has passed: reading says what is wrong, and the next run is as good as ever."""
    encoder = streaming(copied)
    exact = pooled(encoder, Way(kept=0))
    executor = executor_of(encoder)
    path = copied / "longspan.safetensors"
    content = path.read_bytes()
    monkeypatch.setattr(executor._runner._unchanged, "check", lambda: None)
    os.truncate(path, len(content) // 2)
    for way in (Way(kept=0), Way(kept=2)):
        with pytest.raises(
            CheckpointError, match=rf"^{re.escape(str(path))} changed after .* it had {len(content)} bytes"
        ):
            pooled(encoder, way)
    before = os.stat(path)
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="changed after the model was loaded: it was written to"):
        pooled(encoder, Way(kept=0))
    assert before.st_ino == path.stat().st_ino
    assert pooled(streaming(copied), Way(kept=0)) == exact


def load(stream: _csrc.WeightStream) -> None:
    """Reads all of it, for a program that runs on nothing."""
    nothing, none = np.zeros(0, np.int32), np.zeros(1, np.int64)
    place = none, 64, 1
    program = _csrc.Program([("T", 16, "float32")], -1, "generic")
    table = [(np.ones((1, 16), np.float32), "F32")]
    program.add("embed", {"stage": 0, "out": 0, "tokens": table, "scale": 1.0, "position_offset": 0})
    program.run_body(
        ids=nothing,
        positions=nothing,
        cu_seqlens=none,
        partials=[],
        pack_segments=none,
        pack_order=none[:0],
        shared_packs=0,
        task=-1,
        ropes=[],
        q_scales=[],
        pack=place,
        shared=place,
        tile=place,
        threads=1,
        poll=None,
        staging=None,
        weights=stream,
    )


def test_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 1000)
    with (tmp_path / "file").open("rb") as file:
        stream = _csrc.WeightStream(file.fileno(), [[(0, 640)], [], [(960, 64)]])
        assert (stream.bytes(0), stream.bytes(1), stream.bytes(2)) == (4096, 0, 4096)
        assert not stream.view(0, 0).any()
        with pytest.raises(_csrc.StreamError, match="it ends where weights are expected"):
            load(stream)
        assert stream.view(0, 0).tobytes() == b"x" * 640
        assert stream.resident_bytes == 4096
        for stage, span in ((0, 1), (1, 0), (3, 0)):
            with pytest.raises(ValueError, match="there is no such span"):
                stream.view(stage, span)
    broken = _csrc.WeightStream(-1, [[(0, 64)]])
    with pytest.raises(_csrc.StreamError, match="Bad file descriptor"):
        load(broken)


def test_a_full_disk(source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cpu, "packed_bytes", lambda *_: 1 << 60)
    monkeypatch.setattr("longspan.executors.stages._write", full)
    with pytest.raises(
        CheckpointError, match=r"cannot be packed into a file there: No space left on device; set TMPDIR"
    ):
        streaming(source)


# --- Ctrl-C, progress, several callers -------------------------------------------------------------------------------


class HaltError(Exception):
    """Raised by a callback."""


@pytest.mark.parametrize("schedule", ["packs", "shared"])
def test_a_run_that_is_stopped(source: Path, saved: Path, schedule: Any) -> None:
    encoder = streaming(saved)
    exact, executor, batch = pooled(encoder), executor_of(encoder), batch_of(encoder)
    many = PackedBatch(
        np.tile(batch.ids, 400),
        np.tile(batch.positions, 400),
        np.concatenate([[0], np.tile(np.diff(batch.cu_seqlens), 400).cumsum()]),
        batch.partials,
    )
    told: list[int] = []

    def poll(tokens: int) -> None:
        told.append(tokens)
        if len(told) == 3:
            raise HaltError

    with pytest.raises(HaltError):
        executor.run_way(many, Way(schedule=schedule, kept=0), poll)
    assert told == sorted(told)
    assert 0 <= told[0] <= told[-1] < many.tokens
    assert pooled(encoder, Way(schedule=schedule, kept=0)) == exact


def test_a_forked_child(saved: Path) -> None:
    encoder = streaming(saved)
    exact = pooled(encoder, Way(kept=2))
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        status = 3
        try:
            status = 0 if pooled(encoder, Way(kept=2)) == exact else 1
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
