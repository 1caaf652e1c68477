"""Tails bound to their weights: one for every dimension that calls ask for, of which the last few are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .. import _csrc
from ..batch import Float32, Partials
from ..checkpoint.tensor_view import TensorView
from ..program.arena import Extents
from ..program.program import Program
from .binding import bind, partial_arrays
from .layouts import Layout, layout

TAIL_ROWS = 64
"""Vectors that one thread takes through the tail at a time."""

TAILS = 8
"""How many tails stay bound."""


class Tails:
    """The tails of one body, in float32.

    Args:
        isa: the tier of instructions.
        threads: how many threads run one.
    """

    def __init__(self, isa: str, threads: int) -> None:
        self._isa, self._threads = isa, threads
        self._bound: dict[Program, tuple[_csrc.Program, Layout]] = {}

    def run(
        self,
        tail: Program,
        tensors: Mapping[str, TensorView],
        partials: Sequence[Float32],
        batch_partials: Sequence[Partials],
    ) -> Float32:
        """Turn partials into vectors: float32 [N, width of the tail's output]."""
        program, place = self.bound(tail, tensors)
        return program.run_tail(
            data=list(partials),
            partials=[partial_arrays(item) for item in batch_partials],
            cu_vectors=[item.cu_vectors for item in batch_partials],
            layout=place,
            threads=self._threads,
        )

    def bound(self, tail: Program, tensors: Mapping[str, TensorView]) -> tuple[_csrc.Program, Layout]:
        """A tail with its weights, and where its buffers lie."""
        known = self._bound.get(tail)
        if known is None:
            program = bind(tail, tensors, self._isa, tail.outputs[0])
            known = program, layout(tail, Extents(tokens=0, tile=0, vectors=TAIL_ROWS), TAIL_ROWS)
            self._bound = dict([*self._bound.items(), (tail, known)][-TAILS:])
        return known
