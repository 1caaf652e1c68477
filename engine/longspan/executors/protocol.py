"""What every executor offers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from ..batch import Float32, PackedBatch, Partials
from ..checkpoint.tensor_view import TensorView
from ..program.program import Program
from .ceiling import Ceiling


class Executor(Protocol):
    """Runs a body on batches, and tails on what it pooled."""

    @property
    def ceiling(self) -> Ceiling | None:
        """The ceiling on the process's memory that it keeps to."""

    def release(self) -> None:
        """Give back what is only held for the next call."""

    def prepare_tail(self, tail: Program, tensors: Mapping[str, TensorView]) -> None:
        """Make a tail ready, so that no body is run for one that there is no memory for."""

    def run_body(self, batch: PackedBatch, *, poll: Callable[[int], None] | None = None) -> tuple[Float32, ...]:
        """Partials [P, D] per pooling."""

    def run_tail(
        self,
        tail: Program,
        tensors: Mapping[str, TensorView],
        partials: tuple[Float32, ...],
        batch_partials: tuple[Partials, ...],
    ) -> Float32:
        """Vectors [N, d]."""
