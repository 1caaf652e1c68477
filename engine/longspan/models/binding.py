"""Finds a program's weights in a checkpoint, under whichever names the checkpoint uses."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence

from ..checkpoint.tensor_view import TensorView
from ..checkpoint.tensors import Tensors
from ..errors import CheckpointError, UnusedWeightsWarning
from ..program.program import Program
from .family import Body

USABLE = ("F32", "F16", "BF16")
FLOATS = ("F", "BF")
HEADS = (
    *("classifier", "cls", "decoder", "discriminator_predictions", "embed_out", "generator_lm_head"),
    *("generator_predictions", "head", "lm_head", "mlm_head", "pooler", "pre_classifier", "predictions", "qa_outputs"),
    *("score", "v_head", "vocab_layer_norm", "vocab_projector", "vocab_transform"),
)
TOWERS = (
    "audio_tower",
    "embed_audio",
    "embed_vision",
    "multi_modal_projector",
    "vision_model",
    "vision_tower",
    "visual",
)
LEFTOVERS = frozenset({*HEADS, *TOWERS})
"""What stands at the top of a checkpoint and changes no token vector."""
TABLES = frozenset({"rotary_emb", "rotary_pos_emb", "inv_freq", "position_ids"})
"""Modules and buffers that hold what the config says already."""
MASKS = ("bias", "masked_bias")
"""Buffers of GPT-2's and GPT-NeoX's attention: the causal mask, and what is put in its place."""
SHOWN = 5
"""How many tensors a warning names."""


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


def check_surplus(body: Body, tensors: Tensors, found: Mapping[str, TensorView]) -> None:
    """Checks that the checkpoint has nothing that belongs to the body and that the body does not use.

    What lies beside the model, such as a head or a tower of images, is nobody's; so are the `LEFTOVERS` in it, and all
    that is no float. Anything else in it says that the config is another model's.

    Args:
        body: the whole model.
        tensors: the checkpoint's.
        found: the tensors that the body uses, as `bind` gives them.

    Raises:
        CheckpointError: there is such a tensor; the message names it.

    Warns:
        UnusedWeightsWarning: a tensor beside the model, in a checkpoint that has no prefix to tell what is in it.
    """
    used = {view.name for view in found.values()}
    prefix = next((view.name.removesuffix(name) for name, view in found.items() if view.name.endswith(name)), "")
    parts = {_first_part(name, prefix) for name in used}
    layers: dict[str, int] = {}
    for shape, number in (numbered for name in used for numbered in _numbered(name)):
        layers[shape] = max(layers.get(shape, -1), number)
    others = {other + name: name for other in body.prefixes for name in found if any(_numbered(name))}
    aliases = {name.removesuffix(new) + old for name in used for new, old in body.renamed if name.endswith(new)}
    unknown = []
    for name, view in tensors.items():
        if name in used or name in aliases or not view.dtype.startswith(FLOATS) or _is_leftover(name, prefix):
            continue
        for shape, number in _numbered(name):
            if number > layers.get(shape, number):
                raise CheckpointError(
                    f"{tensors.source}: tensor {name!r} lies beyond the {layers[shape] + 1} that the config speaks of."
                )
        if name in others:
            same = found[others[name]].name
            raise CheckpointError(f"{tensors.source}: tensor {name!r} is there beside {same!r}; one of them counts.")
        inside = name.startswith(prefix) and (prefix or _first_part(name, prefix) in parts)
        if inside:
            kind = ending if (ending := name.rpartition(".")[2]) in ("weight", "bias") else "parameter"
            raise CheckpointError(f"{tensors.source}: tensor {name!r} is a {kind} that the config does not speak of.")
        if not prefix:
            unknown.append(name)
    if unknown:
        shown = ", ".join(unknown[:SHOWN]) + (f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else "")
        warnings.warn(UnusedWeightsWarning(f"{tensors.source} has weights that nothing uses: {shown}"), stacklevel=2)


def _first_part(name: str, prefix: str) -> str:
    """What stands before the first dot behind the prefix."""
    return name.removeprefix(prefix).partition(".")[0]


def _is_leftover(name: str, prefix: str) -> bool:
    parts = name.removeprefix(prefix).split(".")
    masks = parts[-1] in MASKS and parts[-2:-1] in (["attn"], ["attention"])
    return parts[0] in LEFTOVERS or masks or not TABLES.isdisjoint(parts) or "parametrizations" in parts


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
