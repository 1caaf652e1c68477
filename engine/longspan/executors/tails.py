"""Tails bound to their weights: one for every dimension that calls ask for, of which the last few are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .. import _csrc
from ..batch import Float32, Partials
from ..checkpoint.tensor_view import TensorView
from ..program.arena import Extents
from ..program.program import Program
from .binding import bind, partial_arrays
from .ceiling import Ceiling
from .layouts import Layout, layout
from .streamed import packed_bytes

TAIL_ROWS = 64
"""Vectors that one thread takes through the tail at a time."""

TAILS = 8
"""How many tails stay bound; below a ceiling one."""


class Tails:
    """The tails of one body, in float32.

    Args:
        isa: the tier of instructions.
        threads: how many threads run one.
        ceiling: on the process, if one is set.
    """

    def __init__(self, isa: str, threads: int, ceiling: Ceiling | None) -> None:
        self._isa, self._threads, self._ceiling = isa, threads, ceiling
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

    def holds(self, tail: Program) -> bool:
        """Whether a tail is bound."""
        return tail in self._bound

    def bound(self, tail: Program, tensors: Mapping[str, TensorView]) -> tuple[_csrc.Program, Layout]:
        """A tail with its weights, and where its buffers lie.

        Raises:
            MemoryCeilingError: they do not fit below the ceiling.
        """
        known = self._bound.get(tail)
        if known is None:
            place = layout(tail, Extents(tokens=0, tile=0, vectors=TAIL_ROWS), TAIL_ROWS)
            if self._ceiling is not None:
                self._bound = {}
                size = packed_bytes(tail, "float32") + self._threads * place[1] + _largest_source(tail, tensors)
                self._ceiling.require(size, "the layers after pooling take")
            known = bind(tail, tensors, self._isa, tail.outputs[0]), place
            self._bound = dict([*self._bound.items(), (tail, known)][-TAILS:])
        return known


def _largest_source(tail: Program, tensors: Mapping[str, TensorView]) -> int:
    """Bytes of the file that packing one instruction brings into memory, until it is packed."""
    names = ([name for weight in step.weights for name in weight.names] for step in tail.instructions)
    return max((sum(tensors[name].data.nbytes for name in own) for own in names), default=0)
