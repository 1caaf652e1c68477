"""Modules that a checkpoint stores together, one's rows below another's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..batch import Float32
from .computed import ComputedView
from .tensor_view import TensorView


@dataclass(frozen=True, slots=True)
class Share:
    """Where a checkpoint has a module: alone, or as one of several equal shares of the rows of another.

    Attributes:
        module: the stored one.
        index, count: which share of how many.
    """

    module: str
    index: int = 0
    count: int = 1

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """Of the share, from that of what is stored."""
        return (stored[0] // self.count, *stored[1:])

    def changed(
        self, stored: TensorView, given: TensorView | None, update: Callable[[Float32], Float32] | None
    ) -> TensorView:
        """What is stored, but for this share: `given` stands in its place if there is one, and `update` changes that.

        What is given has the shape of the share, unless that is all that is stored.
        """
        if self.count == 1:
            base = stored if given is None else replace(given, name=stored.name)
            return base if update is None else ComputedView(stored.name, base.shape, [base], update)

        def make(whole: Float32, *others: Float32) -> Float32:
            made = whole.copy()
            size = len(whole) // self.count
            rows = made[self.index * size : (self.index + 1) * size]
            own = others[0] if others else rows
            rows[:] = own if update is None else update(own)
            return made

        return ComputedView(stored.name, stored.shape, [stored, *([] if given is None else [given])], make)
