"""A body's batches in the form that `_csrc` takes, and the files that are read while they run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import _csrc
from ..batch import Float32, Int64, PackedBatch
from ..checkpoint.panels import PackedView
from ..checkpoint.tensor_view import TensorView
from ..checkpoint.unchanged import Unchanged
from ..errors import CheckpointError
from ..program.instructions import Embed
from ..program.program import Program
from ..program.rope import RopeTables
from .binding import partial_arrays
from .footprint import tables_of
from .layouts import BodyLayouts
from .schedule import make_packs
from .streamed import StreamedWeights
from .ways import Way

Poll = Callable[[int], None]


class BodyRunner:
    """Runs a bound body, or a stage of it that is bound by itself, on batches.

    Args:
        body: the program.
        tensors: the checkpoint.

    Attributes:
        layouts: of its buffers.
        tables: the embedding tables that it reads rows of.
    """

    def __init__(self, body: Program, tensors: Mapping[str, TensorView]) -> None:
        self.layouts = BodyLayouts(body)
        self.tables = tuple(tables_of(body, tensors))
        self._ropes = RopeTables()
        self._rotary, self._q_scales, self._position_map = body.ropes, body.q_scales, body.position_map
        self._unchanged = Unchanged(_files(body, tensors))

    def run(
        self,
        program: _csrc.Program,
        batch: PackedBatch,
        way: Way,
        threads: int,
        poll: Poll | None = None,
        streamed: StreamedWeights | None = None,
    ) -> tuple[Float32, ...]:
        """Run a batch, or a wave of one; the results are one array per pooling.

        Args:
            program: the bound body.
            batch: the packed texts.
            way: how.
            threads: how many run it.
            poll: see `CpuExecutor.run_body`, as for what is raised.
            streamed: the weights that are not in the program.
        """
        staging = None
        if streamed is not None and way.kept is not None:
            carried = self.layouts.carried
            staging = carried.places, carried.row_bytes, None, streamed.stream, way.kept
        weights = None if streamed is None or staging is not None else streamed.stream
        names = {str(table.file) for table in self.tables} if streamed is None else {streamed.name}
        with self._files_unchanged(names, poll) as checked:
            arguments = self._arguments(batch, way, threads, staged=staging is not None)
            return tuple(program.run_body(**arguments, poll=checked, staging=staging, weights=weights))

    def run_stage(
        self, stage: _csrc.Program, batch: PackedBatch, way: Way, threads: int, rows: npt.NDArray[np.uint8]
    ) -> tuple[Float32, ...]:
        """Run one stage on a batch, all packs; the others are run by other calls, in order, in the same way.

        Args:
            stage: its instructions alone, bound over the body's buffers.
            batch: the packed texts; of the partials those that the stage pools.
            way: how.
            threads: how many run it.
            rows: the first of `staged_bytes`, 64 bytes aligned: what packs bring from the stages before, and leave for
                those after it. Left as it is where the stage is watched.
        """
        carried = self.layouts.carried
        with self._files_unchanged({str(table.file) for table in self.tables}, None) as checked:
            arguments = self._arguments(batch, way, threads, staged=True)
            staging = carried.places, carried.row_bytes, rows, None, 0
            return tuple(stage.run_body(**arguments, poll=checked, staging=staging, weights=None))

    def staged_bytes(self, batch: PackedBatch, way: Way, threads: int) -> tuple[int, int]:
        """What the packs of a batch carry from stage to stage, and what each thread takes besides."""
        packs = make_packs(batch.cu_seqlens, threads, way.schedule, way.pack_tokens)
        tokens = np.diff(batch.cu_seqlens[packs.segments])
        carried = self.layouts.carried
        trial = carried.bytes(tokens.max(initial=0, keepdims=True))  # a copy of what its pack carries
        lane = self.layouts.tokens(int(tokens.max(initial=0)), staged=True)[1] + self.layouts.tile(way.tile_rows)[1]
        return carried.bytes(tokens), trial + lane

    def growth(self, cu_seqlens: Int64) -> int:
        """Bytes of the rotary tables that a batch of these segments makes anew."""
        return sum(self._ropes.growth(rope, np.diff(cu_seqlens)) for rope in self._rotary)

    def _arguments(self, batch: PackedBatch, way: Way, threads: int, *, staged: bool) -> dict[str, Any]:
        packs = make_packs(batch.cu_seqlens, threads, way.schedule, way.pack_tokens)
        own, shared = packs.largest(batch.cu_seqlens)
        place = batch.positions, batch.cu_seqlens
        ropes = [self._ropes.of_batch(rope, *place) for rope in self._rotary]
        mapped = self._position_map
        return {
            "ids": batch.ids,
            "positions": batch.positions if mapped is None else mapped.of_batch(*place),
            "cu_seqlens": batch.cu_seqlens,
            "partials": [partial_arrays(partials) for partials in batch.partials],
            "pack_segments": packs.segments,
            "pack_order": packs.order,
            "shared_packs": packs.shared,
            "task": -1 if batch.task is None else batch.task,
            "ropes": [(rope.rows, rope.values) for rope in ropes],
            "q_scales": [scale.of_batch(*place) for scale in self._q_scales],
            "pack": self.layouts.tokens(own, staged=staged),
            "shared": self.layouts.tokens(shared, staged=staged),
            "tile": self.layouts.tile(way.tile_rows),
            "threads": threads,
        }

    @contextlib.contextmanager
    def _files_unchanged(self, names: set[str], poll: Poll | None) -> Iterator[Poll]:
        """Checks files before a run, and whenever it asks; what is read of them meanwhile is checked as it is read."""
        self._unchanged.check()

        def checked(tokens: int) -> None:
            self._unchanged.check()
            if poll is not None:
                poll(tokens)

        try:
            yield checked
        except _csrc.StreamError as error:
            self._unchanged.check()
            raise CheckpointError(f"{', '.join(sorted(names))} changed after the model was loaded: {error}.") from error


def _files(body: Program, tensors: Mapping[str, TensorView]) -> Iterator[Path]:
    """The files that are read while the program runs: of tables, and of weights in panels."""
    for step in body.instructions:
        for view in (tensors[name] for weight in step.weights for name in weight.names):
            if isinstance(view, PackedView) or (isinstance(step, Embed) and view.is_mapped):
                yield view.file
