"""The C++ executor: binds a program to its weights once, then runs a batch in one call, without the GIL."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import _csrc
from ..batch import Float32, Int64, PackedBatch, Partials
from ..checkpoint.panels import panel_file
from ..checkpoint.tensor_view import TensorView
from ..errors import InputError
from ..program.formats import in_format, with_int8_attention
from ..program.instructions import Pool
from ..program.operands import Weight
from ..program.program import Program
from ..program.rope import RopeTables
from ..weights import Format
from .attention_gate import close_enough
from .binding import bind, read_tables
from .ceiling import GROWTH, RUNS, Ceiling
from .coalescing import Coalescer
from .fitting import BodySizes, Fitting
from .footprint import Footprint, Table, panel_bytes
from .joining import Cut
from .runner import BodyRunner, Poll
from .schedule import PACK_TOKENS, Schedule, make_packs
from .smoothing import SampleWalk
from .stages import PackedStage, joined, packed_away, packed_stages
from .streamed import StreamedWeights, packed_bytes, source_bytes, stored_panels
from .tails import Tails
from .threads import default_threads
from .tiers import wanted_tier
from .ways import SMALL_PACK_TOKENS, Chosen, Way, head

PART_PACKS = 4
"""How many packs of a large batch each thread runs before other callers have their turn."""

STREAMED_PART_TOKENS = 1 << 16
"""The same in tokens where weights are read from a file for every part."""

UNASKED_TOKENS = 512
"""A batch of so many tokens at most runs without asking what memory is left, where there is no ceiling: what it takes
cannot be made less, and asking would take a tenth of a single query's time."""

Panels = tuple[npt.NDArray[Any], Float32 | None, Float32 | None, Float32 | None]
"""A matrix as the kernels read it: panels, and of int8 scales, totals and perhaps smooth; see `checkpoint.panels`."""

PAGE = 1 << 21
"""What an arena may be larger than needed, in bytes."""


class CpuExecutor:
    """A body, packed for this machine.

    Args:
        body: the program; its weights are copied into panels, if the file does not hold them so; these, and embedding
            tables, stay in the file's map.
        tensors: the checkpoint.
        threads: how many threads run a batch; by default what affinity and the cgroup's quota allow.
        isa: a tier of instructions, one of `_csrc.tiers()`; by default the environment's LONGSPAN_ISA, else the best
            that the machine has.
        weights: what the body's matrices are packed as and multiplied in; by default what the file holds panels of,
            else float32. The tail stays float32.
        samples: a batch that shows how far the inputs of products reach, and whether attention over bytes is exact
            enough; for int8, which is then more exact and perhaps faster.
        memory: a ceiling in bytes on what the process ever has resident. Matrices then come from a file stage by stage
            where the ceiling asks for it; no bit of a result depends on it.
        longest: tokens of the longest text to expect; with a ceiling, matrices that leave no room for it go to a file.

    Attributes:
        body: the program, in that format.
        format: the format.

    Raises:
        CheckpointError: a weight is missing or has another shape than the program says.
        InputError: the tier is unknown or not available, or the file holds panels of another format.
        MemoryCeilingError: not even a text of one token would stay below the ceiling.
    """

    def __init__(
        self,
        body: Program,
        tensors: Mapping[str, TensorView],
        *,
        threads: int | None = None,
        isa: str | None = None,
        weights: Format | None = None,
        samples: Callable[[], PackedBatch] | None = None,
        memory: int | None = None,
        longest: int = 1,
    ) -> None:
        self.format = _format(weights, tensors)
        self.body = body = in_format(body, self.format)
        self.threads = default_threads() if threads is None else threads
        self._isa = wanted_tier() if isa is None else isa
        self._runner = BodyRunner(body, tensors)
        ceiling = None if memory is None else Ceiling(memory)
        self._tails = Tails(self._isa, self.threads, ceiling)
        self._load(tensors, samples, ceiling, longest)
        self._panels = 0 if self._streamed else panel_bytes(body, tensors)
        self._fitting = Fitting(ceiling, self.format, stored=self._streamed is not None)
        part_tokens = PART_PACKS * self.threads * PACK_TOKENS
        self._callers = Coalescer(self._run, STREAMED_PART_TOKENS if self._streamed else part_tokens)
        if ceiling is not None:
            ceiling.check()  # whether loading took more
            self._fitting.choose(np.array([0, 1], np.int64), self._sizes, 0, None)
        self._samples = samples
        held = panel_file(tensors.values())
        self._bears_int8_attention = None if held is None else held.int8_attention
        if self.format == "int8" and _csrc.int8_attention_is_faster(self.isa) and self.bears_int8_attention:
            self._program.attend_in_int8(True)
            self.body = with_int8_attention(body)

    @property
    def ceiling(self) -> Ceiling | None:
        """The ceiling on the process's memory."""
        return self._fitting.ceiling

    @property
    def tables(self) -> tuple[Table, ...]:
        """The embedding tables that the body reads rows of."""
        return self._runner.tables

    @property
    def isa(self) -> str:
        """The tier of instructions in use."""
        return self._program.isa

    # --- loading -------------------------------------------------------------------------------------------------

    def _load(
        self,
        tensors: Mapping[str, TensorView],
        samples: Callable[[], PackedBatch] | None,
        ceiling: Ceiling | None,
        longest: int,
    ) -> None:
        held = panel_file(tensors.values())
        walk = None
        if self.format == "int8" and samples is not None and held is None:
            way, threads = (Way(), self.threads) if ceiling is None else (Way(pack_tokens=SMALL_PACK_TOKENS), 1)
            walk = SampleWalk(self._runner, samples(), way, threads)
        mapped = ceiling is None
        stages = packed_stages(self.body, tensors, self._isa, walk, tables_mapped=mapped)
        loading = source_bytes(self.body, tensors) + (0 if walk is None else walk.bytes) + GROWTH
        self._streamed = None if ceiling is None else self._in_a_file(tensors, ceiling, longest, loading, stages)
        if self._streamed is None:
            self._program = joined(self.body, self._isa, stages)
        else:
            self._program = bind(self.body, tensors, self._isa, None, self._streamed.records)
            read_tables(self._program, self.body, tensors)
        if ceiling is not None:
            for view in () if held is None else held.tensors.values():
                view.release()  # what was looked at while loading brought others with it
        self._sampled = None if walk is None else walk.pooled

    def _in_a_file(
        self,
        tensors: Mapping[str, TensorView],
        ceiling: Ceiling,
        longest: int,
        loading: int,
        stages: Iterable[PackedStage],
    ) -> StreamedWeights | None:
        """The matrices in a file, where the checkpoint has them so or memory is too short for them; else None.

        Too short for a run of the longest text beside them, or while they are packed for what that takes, `loading`.
        """
        held = stored_panels(self.body, tensors)
        if held is not None:
            path, stored = held
            with path.open("rb") as file:
                return StreamedWeights(self.body, self.format, str(path), file, stored)
        # Twice the buffers: tiles, results, and a process that grows with its first calls. A file can do with less.
        buffers = 2 * self._runner.layouts.tokens(max(longest, PACK_TOKENS), staged=False)[1] + GROWTH
        if packed_bytes(self.body, self.format) + max(buffers, loading) <= ceiling.room(0):
            return None
        away, stored = packed_away(stages)
        with away:
            return StreamedWeights(self.body, self.format, "the file of packed weights", away, stored)

    @property
    def bears_int8_attention(self) -> bool:
        """Whether attention over bytes hardly changes what the samples pool to; tried out once, unless the file says.

        A tier that is faster so then does it.
        """
        if self._bears_int8_attention is None:
            self._bears_int8_attention = self._samples is not None and self._callers.alone(self._try_int8_attention)
        return self._bears_int8_attention

    def _try_int8_attention(self) -> bool:
        if self._samples is None or self._sampled is None:
            return False
        try:
            self._program.attend_in_int8(True)
            return close_enough(self._sampled, self._run(self._samples(), None))
        finally:
            self._program.attend_in_int8(False)
            self._program.drop_arena()

    # --- the body ------------------------------------------------------------------------------------------------

    def run_body(
        self,
        batch: PackedBatch,
        *,
        schedule: Schedule = "auto",
        pack_tokens: int | None = None,
        poll: Poll | None = None,
    ) -> tuple[Float32, ...]:
        """Run the body on a batch; calls from several threads take turns, see `Coalescer`.

        Args:
            batch: the packed texts.
            schedule: see `make_packs`; never changes a bit of the result.
            pack_tokens: the token budget of a pack; by default chosen by the schedule. A batch with one, or with a
                schedule that is not "auto", runs as it is.
            poll: called about ten times a second with the number of tokens done so far; what it raises ends the run.

        Returns:
            One float32 array [P, D] per pooling.

        Raises:
            ValueError: the batch does not fit the program (ids outside the vocabulary, partials outside a segment, a
                task without low-rank pairs).
            CheckpointError: a file that the weights or tables lie in is not any more what it was.
            MemoryCeilingError: a text does not fit below the ceiling.
            MemoryError: nor does the machine have the memory for it.
        """
        if schedule == "auto" and pack_tokens is None:
            return self._callers.run(batch, poll)
        return self.run_way(batch, Way(schedule=schedule, pack_tokens=pack_tokens), poll)

    def _run(self, batch: PackedBatch, poll: Poll | None) -> tuple[Float32, ...]:
        """A batch in the turn of this executor; below a ceiling in that of the process."""
        if batch.tokens <= UNASKED_TOKENS and self._fitting.ceiling is None:
            return self.run_way(batch, Way(), poll)
        with contextlib.nullcontext() if self._fitting.ceiling is None else RUNS:
            return self._run_in_waves(batch, poll)

    def _run_in_waves(self, batch: PackedBatch, poll: Poll | None) -> tuple[Float32, ...]:
        """A batch wave by wave, in what memory there is at each."""
        cut, most = Cut(batch), None
        while True:
            chosen = self._fit(cut.part(batch.segments), most)
            end = cut.end_of(chosen.way.wave_tokens)
            try:
                pooled = self.run_way(cut.part(end), chosen.way, cut.shifted(poll))
            except MemoryError:  # what is done stays done; the rest has to do with half
                most = self._fitting.less_than(chosen, self._sizes, batch.cu_seqlens)
                self._program.drop_arena()
                continue
            cut.add(end, pooled)
            if cut.done:
                return cut.pooled

    def run_way(self, batch: PackedBatch, way: Way, poll: Poll | None = None) -> tuple[Float32, ...]:
        """Run a batch, or a wave of one, in a given way; arguments, results and errors are those of `run_body`."""
        return self._runner.run(self._program, batch, way, self.threads, poll, self._streamed)

    # --- memory --------------------------------------------------------------------------------------------------

    def _fit(self, batch: PackedBatch, most: int | None) -> Chosen:
        """How to run a batch, or its first wave, within so many bytes at most."""
        chosen = self._fitting.choose(batch.cu_seqlens, self._sizes, self._results(batch), most)
        if self._fitting.ceiling is not None and self._program.arena_bytes > chosen.need.arena + PAGE:
            self._program.drop_arena()
        return chosen

    @property
    def _sizes(self) -> BodySizes:
        streamed = self._streamed
        return BodySizes(
            program=self._program,
            layouts=self._runner.layouts,
            threads=self.threads,
            stage_bytes=self._stage_bytes,
            held=self._program.arena_bytes + (0 if streamed is None else streamed.stream.resident_bytes),
        )

    @property
    def _stage_bytes(self) -> tuple[int, ...]:
        return () if self._streamed is None else self._streamed.stage_bytes

    def _results(self, batch: PackedBatch) -> int:
        """Bytes of what a batch pools to, in parts and in order, of vectors made of that, and of new rotary tables."""
        widths = [step.x.width for step in self.body.instructions if isinstance(step, Pool)]
        pooled = sum(width * partials.count * 4 for width, partials in zip(widths, batch.partials, strict=True))
        return 4 * pooled + self._runner.growth(batch.cu_seqlens)

    def footprint(
        self, cu_seqlens: Int64, tail: Program, tensors: Mapping[str, TensorView], beside: int = 0
    ) -> Footprint:
        """What `run_body` takes for a batch of these segments, and the tail after it; nothing runs.

        Args:
            cu_seqlens: the segments.
            tail: what runs after the body.
            tensors: its own.
            beside: bytes that the call takes besides, which count with a ceiling alone.

        Raises:
            MemoryCeilingError: the batch does not fit below the ceiling.
        """
        tail_program, tail_layout = self._tails.bound(tail, tensors)
        chosen = self._fitting.choose(cu_seqlens, self._sizes, beside, None)
        way, need = chosen.way, chosen.need
        wave = head(cu_seqlens, way.wave_tokens)
        packs = make_packs(wave, self.threads, way.schedule, way.pack_tokens)
        return Footprint(
            tier=self.isa,
            threads=self.threads,
            schedule="packs" if not packs.shared else "shared" if packs.shared == len(packs.order) else "both",
            pack_tokens=max(packs.largest(wave)),
            weights=sum(program.weight_bytes for program in (self._program, tail_program)),
            ropes=sum(RopeTables.bytes_of(rope, np.diff(cu_seqlens)) for rope in self.body.ropes),
            arena=need.arena + self.threads * tail_layout[1],
            arena_now=sum(program.arena_bytes for program in (self._program, tail_program)),
            tables=self.tables,
            tables_mapped=self._fitting.ceiling is None,
            panels=self._panels,
            way=way,
            stages=self._stage_bytes,
            streamed=need.weights,
            streamed_now=0 if self._streamed is None else self._streamed.stream.resident_bytes,
        )

    # --- the tail ------------------------------------------------------------------------------------------------

    def run_tail(
        self,
        tail: Program,
        tensors: Mapping[str, TensorView],
        partials: tuple[Float32, ...],
        batch_partials: tuple[Partials, ...],
    ) -> Float32:
        """Turn partials into vectors: float32 [N, width of the tail's output]."""
        return self._tails.run(tail, tensors, partials, batch_partials)

    def prepare_tail(self, tail: Program, tensors: Mapping[str, TensorView]) -> None:
        """Bind a tail, before a body is run for it.

        Raises:
            MemoryCeilingError: its weights do not fit below the ceiling.
        """
        if self._fitting.ceiling is not None and not self._tails.holds(tail):
            with RUNS:
                self.release()
                self._tails.bound(tail, tensors)

    def release(self) -> None:
        """Give back what is only held for the next call: the arena, and memory that was freed. A run is waited for."""
        self._program.drop_arena()
        _csrc.trim_memory()

    # --- saving --------------------------------------------------------------------------------------------------

    def panels(self) -> Iterator[tuple[Weight, list[Panels]]]:
        """The body's matrices that have a format, each of several experts by itself; views, valid while this lives."""
        if self._streamed is not None:
            yield from self._streamed.panels()
            return
        for index, step in enumerate(self.body.instructions):
            for field, matrices in self._program.panels_of(index).items():
                yield getattr(step, field), matrices


def _format(wanted: Format | None, tensors: Mapping[str, TensorView]) -> Format:
    held = panel_file(tensors.values())
    if held is None:
        return wanted or "float32"
    if wanted not in (None, held.format):
        raise InputError(
            f"weights is {wanted!r}, but {held.path} holds panels of {held.format}: load them as 'auto' or "
            f"{held.format!r}, or load the checkpoint that they were made of"
        )
    return held.format
