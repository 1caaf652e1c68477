"""The footprint says to the byte what a run then takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan import Encoder
from longspan.executors.cpu import CpuExecutor

PAGE = 4096


def fresh(folder: Path, threads: int) -> tuple[Encoder, CpuExecutor]:
    encoder = Encoder(folder, device="cpu", threads=threads)
    executor = encoder._pipeline.executor
    assert isinstance(executor, CpuExecutor)
    return encoder, executor


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 400), min_size=1, max_size=30) | st.lists(st.just(4), min_size=300, max_size=300),
    threads=st.integers(1, 3),
)
def test_the_arena_is_what_was_said(small: Path, lengths: list[int], threads: int) -> None:
    encoder, executor = fresh(small, threads)
    pipeline = encoder._pipeline
    tail, tensors = pipeline.tail(encoder.get_embedding_dimension(), pipeline.unit), pipeline.tail_tensors
    specials = len(pipeline.tokenizer.prefix) + len(pipeline.tokenizer.suffix)
    said = executor.footprint(np.cumsum([0, *(length + specials for length in lengths)]), tail, tensors)
    assert said.arena_now == 0
    encoder.encode(["a " * length for length in lengths])
    after = executor.footprint(np.zeros(1, np.int64), tail, tensors)
    tail_lanes = threads * executor._tails._bound[tail][1][1]
    assert said.arena - tail_lanes <= after.arena_now <= -(-said.arena // PAGE) * PAGE + PAGE
    assert said.weights == after.weights


def test_weights_and_tables(minilm: Path) -> None:
    encoder, executor = fresh(minilm, 1)
    pipeline = encoder._pipeline
    said = executor.footprint(np.array([0, 9]), pipeline.tail(384, True), pipeline.tail_tensors)
    layers = 6 * (4 * 384 * 384 + 2 * 384 * 1536) * 4
    assert layers < said.weights < 1.02 * layers
    assert [(table.kind, table.rows, table.row_bytes) for table in said.tables] == [
        ("tokens", 30522, 1536),
        ("positions", 512, 1536),
        ("types", 2, 1536),
    ]
    assert {table.file for table in said.tables} == {minilm / "model.safetensors"}


def test_panels_in_the_file(minilm: Path, tmp_path: Path) -> None:
    Encoder(minilm, device="cpu", weights="int8").save(tmp_path / "saved")
    encoder, executor = fresh(tmp_path / "saved", 1)
    pipeline = encoder._pipeline
    said = executor.footprint(np.array([0, 9]), pipeline.tail(384, True), pipeline.tail_tensors)
    layers = 6 * (4 * 384 * 384 + 2 * 384 * 1536)
    assert layers < said.panels < 1.03 * layers
    assert said.weights < 0.03 * layers  # biases and norms, in whole pages
    assert {table.file for table in said.tables} == {tmp_path / "saved" / "longspan.safetensors"}


@pytest.mark.parametrize(
    ("lengths", "threads", "schedule", "pack"),
    [
        ([9], 1, "packs", 9),
        ([9], 2, "shared", 9),
        ([100] * 40, 2, "packs", 300),
        ([2000], 2, "shared", 2000),
        ([2000, *[100] * 40], 2, "both", 2000),
    ],
)
def test_the_schedule(small: Path, lengths: list[int], threads: int, schedule: str, pack: int) -> None:
    encoder, executor = fresh(small, threads)
    pipeline = encoder._pipeline
    said = executor.footprint(np.cumsum([0, *lengths]), pipeline.tail(32, False), pipeline.tail_tensors)
    assert (said.schedule, said.pack_tokens, said.threads, said.tier) == (schedule, pack, threads, executor.isa)
