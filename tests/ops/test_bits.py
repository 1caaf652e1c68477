"""Same text, same bits: what a segment pools to depends on nothing but the segment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypedDict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.batch import Float32, PackedBatch, Partials
from longspan.program.instructions import Attention, Embed, Instruction, Linear, Mlp, Norm, Pool, Qkv
from longspan.program.operands import Buffer, Rows
from longspan.program.program import Program
from longspan.weights import Format

from .harness import (
    SCHEDULES,
    Case,
    CpuExecutor,
    Schedule,
    assert_same_bits,
    batch_of,
    cpu_executor,
    every_format,
    every_tier,
    tokens_buffer,
)

VOCABULARY = 30
POISON = VOCABULARY  # the token whose embedding is not a number
WIDTH, INNER, HEADS, SIZE = 40, 520, 5, 8
THREADS = (1, 2, 3)
LENGTHS = (0, 1, 2, 5, 6, 7, 12, 13, 47, 48, 49, 95, 97, 130, 257, 300)

Segment = tuple[int, int]  # its length and the seed of its tokens


class Way(TypedDict):
    """How a batch is run."""

    threads: int
    schedule: Schedule
    pack_tokens: int | None
    task: int | None


segment_lists = st.lists(st.tuples(st.sampled_from(LENGTHS), st.integers(0, 1)), min_size=1, max_size=6)
schedules: st.SearchStrategy[Schedule] = st.sampled_from(("auto", "packs", "shared"))
ways = st.builds(
    Way,
    threads=st.sampled_from(THREADS),
    schedule=schedules,
    pack_tokens=st.sampled_from([None, 1, 13, 64, 256, 10_000]),
    task=st.sampled_from([None, 0, 2]),
)


def layer(case: Case, stage: int, x: Buffer) -> list[Instruction]:
    """One transformer layer with random weights, and low-rank pairs of 3 tasks."""
    q, k, v, context = (tokens_buffer(name, WIDTH) for name in ("q", "k", "v", "context"))
    up, down = case.weight(f"{stage}.up", INNER, WIDTH), case.weight(f"{stage}.down", WIDTH, INNER)
    qkv, out = case.weight(f"{stage}.qkv", 3 * WIDTH, WIDTH), case.weight(f"{stage}.out", WIDTH, WIDTH)
    norm = Norm(stage=stage, x=x, out=x, weight=case.weight(f"{stage}.norm", WIDTH), eps=1e-5)
    hidden, tile_ranks = Buffer("hidden", Rows.TILE, INNER), Buffer("tile_ranks", Rows.TILE, 4)
    ranks = tokens_buffer("ranks", 4)
    shapes = {"qkv": (3 * WIDTH, WIDTH), "out": (WIDTH, WIDTH), "up": (INNER, WIDTH), "down": (WIDTH, INNER)}
    pairs = {name: case.low_rank(f"{stage}.{name}", *shape) for name, shape in shapes.items()}
    heads: dict[str, Any] = {"heads": HEADS, "kv_heads": HEADS, "head_size": SIZE}
    return [
        Qkv(stage=stage, x=x, q=q, k=k, v=v, ranks=ranks, weight=qkv, low_rank=pairs["qkv"], **heads),
        Attention(stage=stage, q=q, k=k, v=v, out=context, scale=SIZE**-0.5, **heads),
        Linear(
            stage=stage,
            x=context,
            out=x,
            ranks=ranks,
            weight=out,
            low_rank=pairs["out"],
            bias=case.weight(f"{stage}.bias", WIDTH),
            residual=x,
        ),
        norm,
        Mlp(
            stage=stage,
            x=x,
            out=x,
            hidden=hidden,
            ranks=tile_ranks,
            up=up,
            up_low_rank=pairs["up"],
            down=down,
            down_low_rank=pairs["down"],
            activation="gelu",
            residual=x,
        ),
        norm,
    ]


class Model:
    """Two layers that pool sums and maxima, in executors of 1, 2 and 3 threads of one tier."""

    def __init__(self, isa: str, weights: Format) -> None:
        case = Case(1)
        x = tokens_buffer("x", WIDTH)
        table = case.normal(VOCABULARY + 1, WIDTH)
        table[POISON, 3] = np.nan
        positions = case.weight("positions", max(LENGTHS), WIDTH)
        pairs = case.low_rank("tokens", VOCABULARY + 1, WIDTH)
        embed = Embed(stage=0, out=x, tokens=case.known("tokens", table), tokens_low_rank=pairs, positions=positions)
        pools = [
            Pool(stage=3, x=x, out=Buffer("sums", Rows.PARTIALS, WIDTH), kind="sum", index=0),
            Pool(stage=3, x=x, out=Buffer("maxima", Rows.PARTIALS, WIDTH), kind="maximum", index=1),
        ]
        body = Program("test", (embed, *layer(case, 1, x), *layer(case, 2, x), *pools), tuple(p.out for p in pools))
        self._executors: dict[int, CpuExecutor] = {
            threads: cpu_executor(body, case.tensors, threads=threads, isa=isa, weights=weights) for threads in THREADS
        }
        self._alone: dict[tuple[Segment, int | None], list[Float32]] = {}

    def run(self, segments: Sequence[Segment], way: Way, poisoned: int | None = None) -> list[list[Float32]]:
        """What each segment pools to; in segment number `poisoned` the middle token is not a number."""
        executor = self._executors[way["threads"]]
        batch = replace(pack(segments, poisoned), task=way["task"])
        pooled = executor.run_body(batch, schedule=way["schedule"], pack_tokens=way["pack_tokens"])
        bounds = batch.partials[0].cu_vectors
        return [[rows[bounds[n] : bounds[n + 1]] for rows in pooled] for n in range(len(segments))]

    def alone(self, segment: Segment, task: int | None) -> list[Float32]:
        """What a segment pools to by itself, with one thread."""
        if (segment, task) not in self._alone:
            way = Way(threads=1, schedule="auto", pack_tokens=None, task=task)
            self._alone[segment, task] = self.run([segment], way)[0]
        return self._alone[segment, task]


def pack(segments: Sequence[Segment], poisoned: int | None) -> PackedBatch:
    """A batch of segments; each but an empty one has three partials: all, the second half, the last token."""
    lengths = [length for length, _ in segments]
    ids = [np.random.default_rng(segment).integers(0, VOCABULARY, segment[0]) for segment in segments]
    if poisoned is not None:
        ids[poisoned][lengths[poisoned] // 2] = POISON
    ends = np.cumsum(lengths)
    ranges = [
        (end - size, end, weight, step)
        for end, length in zip(ends, lengths, strict=True)
        if length
        for size, weight, step in ((length, 1, 0), (length - length // 2, length // 2 + 1, 1), (1, 1, 0))
    ]
    columns = np.array(ranges, np.float64).reshape(-1, 4).T
    partials = Partials(
        starts=columns[0].astype(np.int64),
        ends=columns[1].astype(np.int64),
        first_weight=columns[2].astype(np.float32),
        weight_step=columns[3].astype(np.float32),
        cu_vectors=np.cumsum([0, *(3 if length else 0 for length in lengths)], dtype=np.int64),
    )
    return batch_of(lengths, ids=np.concatenate(ids), partials=[partials, partials])


@every_tier
@every_format
def test_a_segment_pools_to_the_same_bits_in_any_company(isa: str, weights: Format) -> None:
    model = Model(isa, weights)

    @settings(max_examples=40, deadline=None)
    @given(segment_lists, ways)
    def check(segments: list[Segment], way: Way) -> None:
        for number, (segment, result) in enumerate(zip(segments, model.run(segments, way), strict=True)):
            alone = model.alone(segment, way["task"])
            assert_same_bits(result, alone, f"{isa}, {way}, segment {number} of {segments}")

    check()


@every_tier
@every_format
def test_many_short_segments(isa: str, weights: Format) -> None:
    model = Model(isa, weights)
    segments = [(length, seed) for seed in range(10) for length in (3, 1, 13, 0, 7, 2, 12)]
    for schedule in SCHEDULES:
        for threads in THREADS:
            for task in (None, 1):
                way = Way(threads=threads, schedule=schedule, pack_tokens=32, task=task)
                for segment, result in zip(segments, model.run(segments, way), strict=True):
                    assert_same_bits(result, model.alone(segment, task), f"{isa}, {way}, {segment}")


@every_tier
@every_format
def test_nan_stays_in_its_segment(isa: str, weights: Format) -> None:
    model = Model(isa, weights)

    @settings(max_examples=20, deadline=None)
    @given(segment_lists, ways, st.data())
    def check(segments: list[Segment], way: Way, data: st.DataObject) -> None:
        filled = [number for number, (length, _) in enumerate(segments) if length]
        poisoned = data.draw(st.sampled_from(filled)) if filled else None
        for number, (segment, result) in enumerate(zip(segments, model.run(segments, way, poisoned), strict=True)):
            if number == poisoned:
                assert all(np.isnan(rows).all() for rows in result), "every token attends to the poisoned one"
            else:
                alone = model.alone(segment, way["task"])
                assert_same_bits(result, alone, f"{isa}, {way}, segment {number} of {segments}")

    check()
