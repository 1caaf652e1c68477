"""Finds a program's weights in a checkpoint, under whichever names the checkpoint uses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

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


def check_surplus(body: Program, tensors: Tensors, found: Mapping[str, TensorView]) -> None:
    """Checks that the checkpoint has nothing that belongs to the body and that the body does not use.

    Heads, poolers and buffers of other kinds are nobody's; but a bias beside a weight, a weight beside others of a
    layer, or a layer after the last says that the config is another model's.

    Args:
        body: the whole model.
        tensors: the checkpoint's.
        found: the tensors that the body uses, as `bind` gives them.

    Raises:
        CheckpointError: there is such a tensor; the message names it.
    """
    used = {view.name for view in found.values()}
    modules = {name.rpartition(".")[0] for name in used}
    blocks = {block for module in modules if any(_numbered(block := module.rpartition(".")[0]))}
    layers: dict[str, int] = {}
    for name in used:
        for shape, number in _numbered(name):
            layers[shape] = max(layers.get(shape, -1), number)
    for name in tensors:
        if name in used:
            continue
        module, _, ending = name.rpartition(".")
        if ending == "bias" and module in modules:
            raise CheckpointError(f"{tensors.source}: tensor {name!r} is a bias that the config does not speak of.")
        if ending == "weight" and module.rpartition(".")[0] in blocks:
            raise CheckpointError(f"{tensors.source}: tensor {name!r} is a weight that the config does not speak of.")
        for shape, number in _numbered(name):
            if number > layers.get(shape, number):
                raise CheckpointError(
                    f"{tensors.source}: tensor {name!r} lies beyond the {layers[shape] + 1} that the config speaks of."
                )


def _numbered(name: str) -> Iterator[tuple[str, int]]:
    """Each number in a name, with the name around it: "layer.{}.up.weight", 3."""
    parts = name.split(".")
    for place, part in enumerate(parts):
        if part.isdecimal():
            yield ".".join((*parts[:place], "{}", *parts[place + 1 :])), int(part)


def _stored(name: str, tensors: Tensors, renamed: Sequence[tuple[str, str]]) -> str:
    """The name under which a tensor is stored: as the program has it, or as older checkpoints have it."""
    if name not in tensors:
        for ending, older in renamed:
            if name.endswith(ending) and name.removesuffix(ending) + older in tensors:
                return name.removesuffix(ending) + older
    return name
