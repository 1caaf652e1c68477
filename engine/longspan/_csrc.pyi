"""The C++ CPU executor."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_Int32 = npt.NDArray[np.int32]
_Int64 = npt.NDArray[np.int64]
_Float32 = npt.NDArray[np.float32]
_UInt8 = npt.NDArray[np.uint8]
_Partials = tuple[_Int64, _Int64, _Float32, _Float32]
_Layout = tuple[_Int64, int, int]
_Panels = tuple[npt.NDArray[Any], _Float32 | None, _Float32 | None, _Float32 | None]

def tiers() -> list[str]:
    """The instruction tiers that this machine supports, lowest first."""

def how_products_run(isa: str, format: str) -> str:
    """How a tier multiplies with weights of a format, in words."""

def int8_attention_is_faster(isa: str) -> bool:
    """Whether a tier is faster at attention over bytes than over bfloat16."""

def peak_gflops(isa: str, threads: int, format: str = "float32") -> float:
    """Products on registers alone, in 1e9 operations a second: the ceiling of a tier and format on this machine."""

def quantize(vectors: _Float32, precision: str, low: _Float32, step: _Float32, isa: str) -> _UInt8:
    """Vectors [n, d] as bytes: [n, d] by ranges (int8, uint8), or [n, ceil(d / 8)] as bits (binary, ubinary)."""

def scores(queries: _Float32, vectors: _Float32, name: str, threads: int, isa: str) -> _Float32:
    """Scores [q, n] of queries [q, d] with vectors [n, d], by the names of `similarity`."""

def scores_of_codes(
    queries: _Float32,
    codes: _UInt8,
    is_signed: bool,
    low: _Float32,
    step: _Float32,
    name: str,
    threads: int,
    isa: str,
) -> _Float32:
    """Scores [q, n] of queries [q, d] with codes [n, d] that stand for low + level * step, [d] each."""

def hamming(queries: _UInt8, vectors: _UInt8, threads: int, isa: str) -> _Float32:
    """Minus the number of differing bits, [q, n], between packed bits [q, b] and [n, b]."""

def trim_memory() -> None:
    """Gives freed memory back to the system, where the C library can."""

class StreamError(OSError):
    """A file of weights could not be read, or is not any more what it was."""

class WeightStream:
    """Weights in a file, read stage by stage while a program runs.

    Args:
        file: a descriptor, which may be closed afterwards.
        stages: what each stage reads: pairs of the first byte and how many.
    """

    def __init__(self, file: int, stages: Sequence[Sequence[tuple[int, int]]]) -> None: ...
    def view(self, stage: int, span: int) -> _UInt8:
        """Where a span will lie, once it is read: its bytes, zeros before that."""

    def bytes(self, stage: int) -> int:
        """What a stage takes once it is read, in whole pages."""

    @property
    def resident_bytes(self) -> int:
        """What the stages that are in memory now take."""

class Program:
    """A program with its weights bound and packed."""

    def __init__(
        self,
        buffers: Sequence[tuple[str, int, str]],
        output: int,
        isa: str,
    ) -> None: ...
    def add(self, op: str, fields: dict[str, Any]) -> None:
        """Append an instruction and pack its weights, but for those that come in panels: these are read in place."""

    def add_table_file(self, array: npt.NDArray[Any], file: int, offset: int) -> None:
        """Say that an array lies in a mapped file, so that its pages may leave memory and come again."""

    def panels_of(self, index: int) -> dict[str, list[_Panels]]:
        """What instruction number `index` multiplies with, by field: panels, scales, totals, smooth; views, or None."""

    @property
    def isa(self) -> str: ...
    @property
    def weight_bytes(self) -> int:
        """Bytes of the packed weights, in whole pages."""

    @property
    def arena_bytes(self) -> int:
        """Bytes of the arena as the runs so far have left it."""

    def drop_arena(self) -> None:
        """Give the arena back."""

    def attend_in_int8(self, int8: bool) -> None:
        """Whether attention multiplies bytes from now on, where it does not turn queries and keys itself."""

    def take(self, other: Program) -> None:
        """Move the instructions of another program over the same buffers, with their weights, behind these."""

    def watch(self) -> None:
        """From now on threads note how far the inputs of products reach in the packs that they run alone."""

    def watched(self) -> list[dict[str, _Float32]]:
        """For each instruction, by the name of the weight, what was seen of each column: [experts, k], or [1, k]."""

    def needed_bytes(
        self,
        packs: int,
        shared_packs: int,
        pack: int,
        shared: int,
        tile: int,
        tile_rows: int,
        threads: int,
        carried: int,
    ) -> int:
        """Bytes of the arena that `run_body` takes for so many packs, by the bytes of its layouts and carried ones."""

    def run_body(
        self,
        ids: _Int32,
        positions: _Int32,
        cu_seqlens: _Int64,
        partials: Sequence[_Partials],
        pack_segments: _Int64,
        pack_order: _Int64,
        shared_packs: int,
        task: int,
        ropes: Sequence[tuple[_Int32, _Float32]],
        q_scales: Sequence[_Float32],
        pack: _Layout,
        shared: _Layout,
        tile: _Layout,
        threads: int,
        poll: Callable[[int], None] | None,
        staging: tuple[_Int64, int, _UInt8 | None, WeightStream | None, int] | None,
        weights: WeightStream | None,
    ) -> list[_Float32]:
        """Run a body, or stages of it.

        `staging`: where carried buffers lie, bytes of their rows; the rows of all packs, if they come from stages
        before and go to others, which a watched run leaves as they are; the stream, and how many stages stay.
        """

    def run_tail(
        self,
        data: Sequence[_Float32],
        partials: Sequence[_Partials],
        cu_vectors: Sequence[_Int64],
        layout: _Layout,
        threads: int,
    ) -> _Float32: ...
