"""Tensors that no file holds: computed from some that files do, whenever they are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..batch import Float32
from .tensor_view import TensorView, as_float32


class ComputedView(TensorView):
    """A tensor made of others, in float32; `make` gets these as float32 and returns an array of `shape`."""

    __slots__ = ("_bases", "_make")

    def __init__(
        self, name: str, shape: tuple[int, ...], bases: Sequence[TensorView], make: Callable[..., Float32]
    ) -> None:
        """There is at least one base."""
        values = {"name": name, "dtype": "F32", "shape": shape, "file": bases[0].file, "_bases": bases, "_make": make}
        for field, value in values.items():
            object.__setattr__(self, field, value)

    @property
    def data(self) -> Any:
        """The tensor, computed anew."""
        bases: Sequence[TensorView] = self._bases  # type: ignore[attr-defined]
        return self._make(*(as_float32(base.data, base.dtype) for base in bases))  # type: ignore[attr-defined]

    @property
    def is_mapped(self) -> bool:
        """Never."""
        return False

    def release(self) -> None:
        """Gives the base tensors' pages back."""
        for base in self._bases:  # type: ignore[attr-defined]
            base.release()
