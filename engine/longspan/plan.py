"""How one long document will be run and what memory that takes, before anything runs.

`make_plan` is a pure function of sizes; `plan_document` collects these from a pipeline and from the process.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .byte_sizes import in_mib, parse_size
from .checks import is_count
from .errors import InputError
from .executors.cpu import CpuExecutor
from .executors.footprint import Footprint, Table
from .executors.ways import TILE_ROWS
from .pipeline import Pipeline
from .process_memory import ProcessMemory, measure
from .text.windows import count_windows
from .text_memory import FIRST_CALL, chunk_bytes, chunks_of, token_bytes

MOST_TOKENS = (1 << 31) - 1
CHUNK_TOKENS = 256

# Measured on contracts, abstracts and manuals, with documents up to two million tokens.
_DISTINCT, _GROWTH = 2.5, 0.7  # Heaps' law: n tokens of prose have about 2.5 n^0.7 different ones
_FAULT = 1 << 16  # bytes of a mapped file that come into memory with one row

# The choice of a schedule looks at neighbours and at balance: with so many windows, more change nothing.
_WINDOWS = 4096


@dataclass(frozen=True, slots=True)
class Part:
    """A share of the memory, in bytes."""

    name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What `encode_chunks` of one document will do and take.

    Attributes:
        tokens: the document's length.
        windows: what it is cut into.
        window_tokens: tokens of the longest, specials included.
        schedule: "packs" where each thread runs windows of its own, "shared" where all run one together, or "both".
        pack_tokens: the most tokens that go through the model at a time, for each thread or for all.
        threads: how many work.
        tier: of instructions.
        tile_rows: rows of the tiles that intermediate matrices are made for, at most.
        stages: how many stages' weights are read from a file while they are needed; 0 if all are in memory anyway.
        kept_stages: how many of these stay in memory.
        wave_tokens: how many tokens go through the stages together, for one reading of the others.
        tables_kept: whether pages of the embedding tables stay in memory; else rows are read as they are needed.
        memory: the ceiling, if one is set.
        parts: what the peak is made of.
        reached: the peak of this process so far.
    """

    tokens: int
    windows: int
    window_tokens: int
    schedule: Literal["packs", "shared", "both"]
    pack_tokens: int
    threads: int
    tier: str
    tile_rows: int
    stages: int
    kept_stages: int
    wave_tokens: int | None
    tables_kept: bool
    memory: int | None
    parts: tuple[Part, ...]
    reached: int

    @property
    def peak(self) -> int:
        """The most bytes that the process will have resident."""
        return max(self.reached, sum(part.bytes for part in self.parts))

    @property
    def largest(self) -> Part:
        """The part that takes most."""
        return max(self.parts, key=lambda part: part.bytes)

    def fits(self, memory: int | str) -> bool:
        """Whether the peak is at most so many bytes, or a size such as "2GiB".

        Raises:
            InputError: it is no size.
        """
        return self.peak <= parse_size(memory)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        who = {"packs": "of each thread's own", "shared": "that all threads share", "both": "shared or a thread's own"}
        windows = "1 window" if self.windows == 1 else f"{self.windows:,} windows"
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        yield f"a document of {self.tokens:,} tokens in {windows} of at most {self.window_tokens:,}"
        yield f"{threads} (tier {self.tier}), packs of at most {self.pack_tokens:,} tokens {who[self.schedule]}"
        if self.stages:
            yield self._weights_line()
        if not self.tables_kept:
            yield "rows of the embedding tables are read from the file as they are needed"
        if self.tile_rows != TILE_ROWS:
            yield f"intermediate matrices for {self.tile_rows} tokens at a time"
        yield ""
        rows = [(part.name, in_mib(part.bytes)) for part in self.parts]
        if self.reached == self.peak:
            rows.append(("(reached already)", in_mib(self.reached)))
        rows.append(("peak", in_mib(self.peak)))
        names, sizes = (max(map(len, column)) for column in zip(*rows, strict=True))
        yield from (f"{name.ljust(names)}  {size.rjust(sizes)} MiB" for name, size in rows)

    def _weights_line(self) -> str:
        if self.kept_stages == self.stages:
            return "all weights stay in memory once they are read"
        stay = f"weights of {self.kept_stages} of {self.stages} stages stay in memory, the others are read"
        waves = "once" if self.wave_tokens is None else f"for every {self.wave_tokens:,} tokens"
        return f"{stay} {waves}, each while the one before computes"


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a plan is made of besides the process and the executor.

    Attributes:
        tokens: of the document.
        windows, window_tokens: how the model sees it, specials included.
        width: of a partial, over all poolings.
        dimension: of a vector.
    """

    tokens: int
    windows: int
    window_tokens: int
    width: int
    dimension: int


def plan_document(pipeline: Pipeline, tokens: int, max_seq_length: int, dimension: int, unit: bool) -> Plan:
    """The plan of `encode_chunks` for a document of so many tokens, without a prompt, on an idle encoder.

    Raises:
        InputError: `tokens` is no count, or the encoder does not run on the C++ executor.
    """
    if not is_count(tokens, 1) or int(tokens) > MOST_TOKENS:
        raise InputError(f"tokens is {tokens!r}, expected an integer from 1 to {MOST_TOKENS}")
    executor = pipeline.executor
    if not isinstance(executor, CpuExecutor):
        raise InputError("a plan needs the C++ executor: device='cpu' and no backend")
    count = int(tokens)
    capacity = pipeline.capacity(0, max_seq_length)
    windows = count_windows(count, capacity, capacity // 4)
    longest = min(count, capacity) + max_seq_length - capacity
    segments = np.arange(min(windows, _WINDOWS) + 1, dtype=np.int64) * longest
    width = pipeline.body.output.width * len(pipeline.modes)
    sizes = Sizes(count, windows, longest, width, dimension)
    beside = FIRST_CALL + token_bytes(count) + _result_bytes(sizes)
    footprint = executor.footprint(segments, pipeline.tail(dimension, unit), pipeline.tail_tensors, beside)
    process = measure({table.file for table in footprint.tables})
    return make_plan(sizes, footprint, process, pipeline.memory)


def make_plan(sizes: Sizes, footprint: Footprint, process: ProcessMemory, memory: int | None = None) -> Plan:
    """The plan by sizes alone; `memory` is the ceiling."""
    ours = footprint.weights + footprint.arena_now + footprint.streamed_now + process.mapped
    way, stages = footprint.way, sum(size > 0 for size in footprint.stages)
    kept = stages if way.kept is None else sum(size > 0 for size in footprint.stages[: way.kept])
    tables = max(_touched(footprint.tables, sizes), process.mapped - footprint.panels)
    parts = (
        Part("process, libraries, tokenizer", max(process.resident - ours, 0)),
        Part("packed weights", footprint.weights),
        *([Part("panels in the file", footprint.panels)] if footprint.panels else []),
        *([Part("weights read from a file", footprint.streamed)] if stages else []),
        *([Part("embedding tables in the file", tables)] if footprint.tables_mapped else []),
        Part("arena", max(footprint.arena, footprint.arena_now)),
        *([Part("rotary positions", footprint.ropes)] if footprint.ropes else []),
        Part("text and tokens", FIRST_CALL + token_bytes(sizes.tokens)),
        Part("partials and vectors", _result_bytes(sizes)),
    )
    return Plan(
        tokens=sizes.tokens,
        windows=sizes.windows,
        window_tokens=sizes.window_tokens,
        schedule=footprint.schedule,
        pack_tokens=footprint.pack_tokens,
        threads=footprint.threads,
        tier=footprint.tier,
        tile_rows=way.tile_rows,
        stages=stages,
        kept_stages=kept,
        wave_tokens=way.wave_tokens,
        tables_kept=footprint.tables_mapped,
        memory=memory,
        parts=parts,
        reached=process.peak,
    )


def _touched(tables: Iterable[Table], sizes: Sizes) -> int:
    """Bytes of mapped tables that come into memory: a block for every row that a document of prose is likely to use."""
    total = 0
    for table in tables:
        size = table.rows * table.row_bytes
        if table.kind == "tokens":
            rows = min(_DISTINCT * sizes.tokens**_GROWTH, sizes.tokens, table.rows)
            blocks = max(size / _FAULT, 1)
            total += int(size * -math.expm1(-rows * (1 + table.row_bytes / _FAULT) / blocks))
        else:
            rows = sizes.window_tokens if table.kind == "positions" else 1
            total += min(size, rows * table.row_bytes + _FAULT)
    return total


def _result_bytes(sizes: Sizes) -> int:
    """Partials of the document, of its chunks and of those that cross windows, then the vectors."""
    chunks = chunks_of(sizes.tokens)
    partials = 2 * sizes.windows + chunks
    return partials * (sizes.width * 4 + 48) + (chunks + 1) * sizes.dimension * 4 + chunk_bytes(chunks)
