"""Tensors that no file holds: computed from one that a file does, whenever they are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..batch import Float32
from .tensor_view import TensorView, as_float32


class ComputedView(TensorView):
    """A tensor made of another, in float32; `make` gets that as float32 and returns an array of `shape`."""

    __slots__ = ("_base", "_make")

    def __init__(self, name: str, shape: tuple[int, ...], base: TensorView, make: Callable[[Float32], Float32]) -> None:
        values = {"name": name, "dtype": "F32", "shape": shape, "file": base.file, "_base": base, "_make": make}
        for field, value in values.items():
            object.__setattr__(self, field, value)

    @property
    def data(self) -> Any:
        """The tensor, computed anew."""
        base: TensorView = self._base  # type: ignore[attr-defined]
        return self._make(as_float32(base.data, base.dtype))  # type: ignore[attr-defined]

    def release(self) -> None:
        """Gives the base tensor's pages back."""
        self._base.release()  # type: ignore[attr-defined]
