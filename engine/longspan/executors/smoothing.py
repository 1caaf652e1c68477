"""Samples on their way through a body while it is packed: what they bring to a stage decides how it is smoothed."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .. import _csrc
from ..batch import Float32, PackedBatch
from .binding import Inputs
from .runner import BodyRunner
from .ways import Way


class SampleWalk:
    """A batch that goes through a body stage by stage, all of it through one before any goes through the next.

    Args:
        runner: of the body.
        batch: the samples.
        way: how each stage runs them; no bit of what is seen depends on it.
        threads: how many run them, each on packs of its own.

    Attributes:
        bytes: what the batch takes while it is on its way, but for scratch of products.
        pooled: what the batch pools to, one array per pooling, once it is through.
    """

    def __init__(self, runner: BodyRunner, batch: PackedBatch, way: Way, threads: int) -> None:
        self._runner, self._batch = runner, batch
        self._way, self._threads = replace(way, schedule="packs"), threads
        carried, lane = runner.staged_bytes(batch, self._way, threads)
        self.bytes = carried + threads * lane
        self._rows = np.frombuffer(mmap.mmap(-1, max(carried, 1)), np.uint8)  # takes no memory before it is written
        self.pooled: tuple[Float32, ...] = ()

    def watch(self, stage: _csrc.Program, *, pools: bool) -> Sequence[Inputs]:
        """How far the inputs of a stage's products reach, instruction by instruction; the batch stays before it.

        Args:
            stage: its instructions alone, bound over the body's buffers.
            pools: whether the body's pools are among them.
        """
        stage.watch()
        self._run(stage, pools=pools)
        return stage.watched()

    def go_on(self, stage: _csrc.Program, *, pools: bool) -> None:
        """Go through a stage, given as to `watch`, and wait before the next."""
        pooled = self._run(stage, pools=pools)
        if pools:
            self.pooled = pooled

    def _run(self, stage: _csrc.Program, *, pools: bool) -> tuple[Float32, ...]:
        batch = self._batch if pools else replace(self._batch, partials=())
        try:
            return self._runner.run_stage(stage, batch, self._way, self._threads, self._rows)
        finally:
            stage.drop_arena()
