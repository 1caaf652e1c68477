"""The C++ executor: hands a program to `_csrc` once, then runs batches in one call each, without the GIL."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import _csrc
from ..batch import Float32, Int64, PackedBatch, Partials
from ..checkpoint.panels import PackedView, panel_file
from ..checkpoint.tensor_view import TensorView, as_float32
from ..errors import CheckpointError, InputError
from ..program.arena import Extents, place
from ..program.formats import in_format, with_int8_attention
from ..program.instructions import Attention, Embed, HeadNorm, Instruction, Routing, Tap
from ..program.operands import Buffer, LowRank, Weight
from ..program.positions import LengthScale, SelfExtend
from ..program.program import Program
from ..program.relative import bias_buckets
from ..program.rope import PositionScale, Rope, RopeTables
from ..weights import Format
from .attention_gate import close_enough
from .coalescing import Coalescer
from .footprint import Footprint, panel_bytes, tables_of
from .schedule import PACK_TOKENS, Packs, Schedule, make_packs
from .threads import default_threads
from .tiers import wanted_tier

TILE_ROWS = 96
"""Rows of one `mlp` tile: its intermediate matrix stays in the near cache."""

TAIL_ROWS = 64
"""Vectors that one thread takes through the tail at a time."""

TAILS = 8
"""How many tails stay bound; every dimension that calls ask for is one."""

PART_PACKS = 4
"""How many packs of a large batch each thread runs before other callers have their turn."""

RELATIVE_PAD = 16
"""By how much the C++ kernels may read beyond the largest distance of a relative bias."""

Panels = tuple[npt.NDArray[Any], Float32 | None, Float32 | None, Float32 | None]
"""A matrix as the kernels read it: panels, and of int8 scales, totals and perhaps smooth; see `checkpoint.panels`."""

Layout = tuple[Int64, int, int]
"""Byte offsets by buffer index, bytes of the arena, rows it was laid out for."""


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

    Attributes:
        body: the program, in that format.
        format: the format.

    Raises:
        CheckpointError: a weight is missing or has another shape than the program says.
        InputError: the tier is unknown or not available, or the file holds panels of another format.
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
    ) -> None:
        self.format = _format(weights, tensors)
        self.body = body = in_format(body, self.format)
        self.threads = default_threads() if threads is None else threads
        self._isa = wanted_tier() if isa is None else isa
        self._ropes = RopeTables()
        self._callers = Coalescer(
            lambda batch, poll: self._run(batch, make_packs(batch.cu_seqlens, self.threads), self.threads, poll),
            part_tokens=PART_PACKS * self.threads * PACK_TOKENS,
        )
        self._rotary, self._q_scales, self._position_map = body.ropes, body.q_scales, body.position_map
        self._layouts: dict[int, Layout] = {}
        self._tile = _layout(body, Extents(tokens=0, tile=TILE_ROWS, vectors=0), TILE_ROWS)
        self._program = _bind(body, tensors, self._isa, output=None)
        self._panels = panel_bytes(body, tensors)
        if self.format == "int8" and samples is not None and not self._panels:
            inputs = self._inputs(samples())
            del self._program  # one copy of the weights at a time
            self._program = _bind(body, tensors, self._isa, output=None, inputs=inputs)
        self._samples = samples
        held = panel_file(tensors.values())
        self._bears_int8_attention = None if held is None else held.int8_attention
        if self.format == "int8" and _csrc.int8_attention_is_faster(self.isa) and self.bears_int8_attention:
            self._program.attend_in_int8(True)
            self.body = with_int8_attention(body)
        self._tables = tuple(tables_of(body, tensors))
        self._tails: dict[Program, tuple[_csrc.Program, Layout]] = {}

    @property
    def isa(self) -> str:
        """The tier of instructions in use."""
        return self._program.isa

    @property
    def bears_int8_attention(self) -> bool:
        """Whether attention over bytes hardly changes what the samples pool to; tried out once, unless the file says.

        A tier that is faster so then does it.
        """
        if self._bears_int8_attention is None:
            samples = None if self._samples is None else self._samples()
            self._bears_int8_attention = samples is not None and self._callers.alone(
                lambda: self._try_int8_attention(samples)
            )
        return self._bears_int8_attention

    def run_body(
        self,
        batch: PackedBatch,
        *,
        schedule: Schedule = "auto",
        pack_tokens: int | None = None,
        poll: Callable[[int], None] | None = None,
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
        """
        if schedule == "auto" and pack_tokens is None:
            return self._callers.run(batch, poll)
        packs = make_packs(batch.cu_seqlens, self.threads, schedule, pack_tokens)
        return self._run(batch, packs, self.threads, poll)

    def _run(
        self, batch: PackedBatch, packs: Packs, threads: int, poll: Callable[[int], None] | None
    ) -> tuple[Float32, ...]:
        own, shared = packs.largest(batch.cu_seqlens)
        place = batch.positions, batch.cu_seqlens
        ropes = [self._ropes.of_batch(rope, *place) for rope in self._rotary]
        mapped = self._position_map
        return tuple(
            self._program.run_body(
                ids=batch.ids,
                positions=batch.positions if mapped is None else mapped.of_batch(*place),
                cu_seqlens=batch.cu_seqlens,
                partials=[_arrays(partials) for partials in batch.partials],
                pack_segments=packs.segments,
                pack_order=packs.order,
                shared_packs=packs.shared,
                task=-1 if batch.task is None else batch.task,
                ropes=[(rope.rows, rope.values) for rope in ropes],
                q_scales=[scale.of_batch(*place) for scale in self._q_scales],
                pack=self._token_layout(own),
                shared=self._token_layout(shared),
                tile=self._tile,
                threads=threads,
                poll=poll,
            )
        )

    def _inputs(self, batch: PackedBatch) -> list[dict[str, list[float]]]:
        """For each instruction, by weight: how far the columns of its input reach, seen with a batch."""
        self._program.watch()
        self._run(batch, make_packs(batch.cu_seqlens, 1, "packs"), 1, None)
        return self._program.watched()

    def _try_int8_attention(self, samples: PackedBatch) -> bool:
        packs = make_packs(samples.cu_seqlens, self.threads)
        plain = self._run(samples, packs, self.threads, None)
        try:
            self._program.attend_in_int8(True)
            return close_enough(plain, self._run(samples, packs, self.threads, None))
        finally:
            self._program.attend_in_int8(False)
            self._program.drop_arena()

    def run_tail(
        self,
        tail: Program,
        tensors: Mapping[str, TensorView],
        partials: tuple[Float32, ...],
        batch_partials: tuple[Partials, ...],
    ) -> Float32:
        """Turn partials into vectors: float32 [N, width of the tail's output]."""
        program, layout = self._bound_tail(tail, tensors)
        return program.run_tail(
            data=list(partials),
            partials=[_arrays(item) for item in batch_partials],
            cu_vectors=[item.cu_vectors for item in batch_partials],
            layout=layout,
            threads=self.threads,
        )

    def footprint(self, cu_seqlens: Int64, tail: Program, tensors: Mapping[str, TensorView]) -> Footprint:
        """What `run_body` takes for a batch of these segments, and the tail after it; nothing runs."""
        tail_program, tail_layout = self._bound_tail(tail, tensors)
        packs = make_packs(cu_seqlens, self.threads)
        own, shared = packs.largest(cu_seqlens)
        arena = self._program.needed_bytes(
            packs=len(packs.order),
            shared_packs=packs.shared,
            pack=self._token_layout(own)[1],
            shared=self._token_layout(shared)[1],
            tile=self._tile[1],
            tile_rows=self._tile[2],
            threads=self.threads,
        )
        return Footprint(
            tier=self.isa,
            threads=self.threads,
            schedule="packs" if not packs.shared else "shared" if packs.shared == len(packs.order) else "both",
            pack_tokens=max(own, shared),
            weights=sum(program.weight_bytes for program in (self._program, tail_program)),
            ropes=sum(RopeTables.bytes_of(rope, np.diff(cu_seqlens)) for rope in self._rotary),
            arena=arena + self.threads * tail_layout[1],
            arena_now=sum(program.arena_bytes for program in (self._program, tail_program)),
            tables=self._tables,
            panels=self._panels,
        )

    def panels(self) -> Iterator[tuple[Weight, list[Panels]]]:
        """The body's matrices that have a format, each of several experts by itself; views, valid while this lives."""
        for index, step in enumerate(self.body.instructions):
            for field, matrices in self._program.panels_of(index).items():
                yield getattr(step, field), matrices

    def _bound_tail(self, tail: Program, tensors: Mapping[str, TensorView]) -> tuple[_csrc.Program, Layout]:
        known = self._tails.get(tail)
        if known is None:
            program = _bind(tail, tensors, self._isa, output=tail.outputs[0])
            layout = _layout(tail, Extents(tokens=0, tile=0, vectors=TAIL_ROWS), TAIL_ROWS)
            known = program, layout
            self._tails = dict([*self._tails.items(), (tail, known)][-TAILS:])
        return known

    def _token_layout(self, tokens: int) -> Layout:
        rows = -(-tokens // 64) * 64
        layout = self._layouts.get(rows)
        if layout is None:
            layout = self._layouts[rows] = _layout(self.body, Extents(tokens=rows, tile=0, vectors=0), rows)
        return layout


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


def _arrays(partials: Partials) -> tuple[Int64, Int64, Float32, Float32]:
    return partials.starts, partials.ends, partials.first_weight, partials.weight_step


def _layout(program: Program, extents: Extents, rows: int) -> Layout:
    arena = place(program, extents)
    offsets = [arena.offsets.get(buffer.name, 0) for buffer in program.buffers]
    return np.array(offsets, np.int64), arena.size, rows


def _bind(
    program: Program,
    tensors: Mapping[str, TensorView],
    isa: str,
    output: Buffer | None,
    inputs: Sequence[Mapping[str, Sequence[float]]] = (),
) -> _csrc.Program:
    """The program with its weights, in the form that `_csrc` takes; `inputs` are those of `_inputs`."""
    index = {buffer.name: i for i, buffer in enumerate(program.buffers)}
    try:
        bound = _csrc.Program(
            buffers=[(buffer.rows.value, buffer.width, buffer.dtype) for buffer in program.buffers],
            output=-1 if output is None else index[output.name],
            isa=isa,
        )
    except ValueError as error:
        raise InputError(str(error)) from error
    for number, step in enumerate(program.instructions):
        known = {"inputs": inputs[number]} if inputs else {}
        views = [tensors[name] for weight in step.weights for name in weight.names]
        try:
            bound.add(step.op, _fields(step, program, index, tensors) | known)
        except ValueError as error:
            held = panel_file(views)
            if held is None:
                raise
            raise CheckpointError(f"{held.path}: {error}.") from error
        if not isinstance(step, Embed):  # packed: its pages of the file need not stay in memory
            for view in views:
                view.release()
    return bound


def _fields(
    step: Instruction, program: Program, index: Mapping[str, int], tensors: Mapping[str, TensorView]
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for spec in dataclasses.fields(step):
        value = getattr(step, spec.name)
        match value:
            case Buffer():
                value = index[value.name]
            case Weight():
                value = _operand(value, tensors)
            case LowRank():
                left, right = (_parts(weight, tensors) for weight in (value.left, value.right))
                value = {"left": left, "right": right, "tasks": value.tasks, "rank": value.rank, "scale": value.scale}
            case Rope():
                number = program.ropes.index(value)
                value = {"index": number, "size": value.size, "interleaved": value.interleaved}
            case PositionScale() | LengthScale():
                value = program.q_scales.index(value)
            case HeadNorm() | Routing() | SelfExtend():
                value = dataclasses.asdict(value)
        values[spec.name] = value
    if isinstance(step, Attention) and step.relative is not None:
        values["reach"] = step.relative.max_distance
        values["relative_bias"] = [(_by_distance(step, values["relative_bias"]), "F32")]
    if isinstance(step, Tap):
        values["layers"] = step.weight.size
    return values


def _operand(weight: Weight, tensors: Mapping[str, TensorView]) -> Any:
    """A weight as `_csrc` takes it: in panels, or as parts."""
    views = [tensors[name] for name in weight.names]
    held = panel_file(views)
    if held is None or not all(isinstance(view, PackedView) for view in views):
        return _parts(weight, tensors)
    return {"name": weight.key, "format": held.format, **held.parts(weight.key)}


def _parts(weight: Weight, tensors: Mapping[str, TensorView]) -> list[tuple[Any, str]]:
    return [(weight.arrange(tensors[name].data), tensors[name].dtype) for name in weight.names]


def _by_distance(step: Attention, parts: Sequence[tuple[Any, str]]) -> Float32:
    """A relative bias by query - key, padded at both ends: [H, 2 * (max_distance + pad) + 1]."""
    assert step.relative is not None
    assert step.relative_bias is not None
    table = np.concatenate([as_float32(data, dtype) for data, dtype in parts])
    by_distance = table[bias_buckets(step.relative, step.relative_bias.shape[0])[::-1]]
    padded = np.pad(by_distance, ((RELATIVE_PAD, RELATIVE_PAD), (0, 0)), mode="edge")
    return np.ascontiguousarray(padded.T)
