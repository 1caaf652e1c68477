"""Finds a program's weights in a checkpoint, under whichever names the checkpoint uses."""

from __future__ import annotations

from collections.abc import Sequence

from ..checkpoint.tensor_view import TensorView
from ..checkpoint.tensors import Tensors
from ..errors import CheckpointError
from ..program.program import Program

USABLE = ("F32", "F16", "BF16")


def bind(
    program: Program, tensors: Tensors, prefixes: Sequence[str] = ("",), renamed: Sequence[tuple[str, str]] = ()
) -> dict[str, TensorView]:
    """The checkpoint's tensors under the program's names.

    Args:
        program: whose weights are looked up.
        tensors: the checkpoint's.
        prefixes: what checkpoints put before the names of this family ("bert."), the likeliest first. One prefix
            serves all weights.
        renamed: endings of the program's names, and what older checkpoints have instead.

    Raises:
        CheckpointError: a tensor is missing, or has another shape or a type that is not a float of 16 or 32 bits.
    """
    names = [name for weight in program.weights for name in weight.names]
    prefix = next((p for p in prefixes if names and _stored(p + names[0], tensors, renamed) in tensors), prefixes[0])
    found: dict[str, TensorView] = {}
    for weight in program.weights:
        for name, shape in weight.stored.items():
            stored = name if name in tensors else _stored(prefix + name, tensors, renamed)
            view = tensors.require(stored, shape)
            if view.dtype not in USABLE:
                known = ", ".join(USABLE)
                raise CheckpointError(
                    f"{view.file}: tensor {view.name!r} has the type {view.dtype}; usable are {known}."
                )
            found[name] = view
    return found


def _stored(name: str, tensors: Tensors, renamed: Sequence[tuple[str, str]]) -> str:
    """The name under which a tensor is stored: as the program has it, or as older checkpoints have it."""
    if name not in tensors:
        for ending, older in renamed:
            if name.endswith(ending) and name.removesuffix(ending) + older in tensors:
                return name.removesuffix(ending) + older
    return name
