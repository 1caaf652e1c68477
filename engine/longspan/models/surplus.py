"""What a checkpoint holds beyond the tensors that its model uses: customary leftovers, or another model's parts."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..checkpoint.tensor_view import TensorView
from ..checkpoint.tensors import Tensors
from ..errors import CheckpointError, UnusedWeightsWarning
from .family import Body

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
TABLES = frozenset({"rotary_emb", "rotary_pos_emb", "inv_freq", "position_ids", "parametrizations"})
"""Modules and buffers that hold what the config says already; and pairs for tasks that it may declare, or not."""
MASKS = ("bias", "masked_bias")
"""Buffers of GPT-2's and GPT-NeoX's attention: the causal mask, and what is put in its place."""
SHOWN = 5
"""How many tensors a warning names."""


def check_surplus(body: Body, tensors: Tensors, found: Mapping[str, TensorView]) -> None:
    """Checks that the checkpoint has nothing that belongs to the body and that the body does not use.

    What lies beside the model, such as a head or a tower of images, is nobody's; so are the `LEFTOVERS` in it, and all
    that is no float. Anything else in it says that the config is another model's.

    Args:
        body: the whole model.
        tensors: the checkpoint's.
        found: the tensors that the body uses, by its own names.

    Raises:
        CheckpointError: there is such a tensor; the message names it.

    Warns:
        UnusedWeightsWarning: a tensor beside the model, in a checkpoint that has no prefix to tell what is in it.
    """
    model = _Model.of(body, found)
    beside = []
    for name, view in tensors.items():
        if name in model.known or not view.dtype.startswith(FLOATS) or model.leaves_over(name):
            continue
        complaint = model.complaint(name)
        if complaint is not None:
            raise CheckpointError(f"{tensors.source}: tensor {name!r} {complaint}.")
        if not model.prefix:
            beside.append(name)
    if beside:
        names = ", ".join(beside[:SHOWN]) + (f" and {len(beside) - SHOWN} more" if len(beside) > SHOWN else "")
        warnings.warn(UnusedWeightsWarning(f"{tensors.source} has weights that nothing uses: {names}"), stacklevel=2)


@dataclass(frozen=True, slots=True)
class _Model:
    """What is where in a checkpoint.

    Attributes:
        prefix: before all names of the model.
        known: the tensors that are used, and other names of theirs.
        parts: what stands before the first dot behind the prefix.
        layers: the greatest number in names with one, by the name around it.
        twice: of tensors in layers, the names behind other prefixes, and those that are used.
    """

    prefix: str
    known: frozenset[str]
    parts: frozenset[str]
    layers: Mapping[str, int]
    twice: Mapping[str, str]

    @classmethod
    def of(cls, body: Body, found: Mapping[str, TensorView]) -> _Model:
        used = {view.name for view in found.values()}
        prefix = next((view.name.removesuffix(name) for name, view in found.items() if view.name.endswith(name)), "")
        aliases = {name.removesuffix(new) + old for name in used for new, old in body.renamed if name.endswith(new)}
        layers: dict[str, int] = {}
        for shape, number in (numbered for name in used for numbered in _numbered(name)):
            layers[shape] = max(layers.get(shape, -1), number)
        inside = {name: view.name for name, view in found.items() if any(_numbered(name))}
        twice = {other + name: stored for other in body.prefixes for name, stored in inside.items()}
        parts = frozenset(name.removeprefix(prefix).partition(".")[0] for name in used)
        return cls(prefix, frozenset(used | aliases), parts, layers, twice)

    def leaves_over(self, name: str) -> bool:
        """Whether a tensor changes no token vector, by its name."""
        parts = name.removeprefix(self.prefix).split(".")
        masks = parts[-1] in MASKS and parts[-2:-1] in (["attn"], ["attention"])
        return parts[0] in LEFTOVERS or masks or not TABLES.isdisjoint(parts)

    def complaint(self, name: str) -> str | None:
        """Why a tensor that is not used must not be there; None if it is beside the model."""
        for shape, number in _numbered(name):
            if number > self.layers.get(shape, number):
                return f"lies beyond the {self.layers[shape] + 1} that the config speaks of"
        if name in self.twice:
            return f"is there beside {self.twice[name]!r}; one of them counts"
        part = name.removeprefix(self.prefix).partition(".")[0]
        if not name.startswith(self.prefix) or not (self.prefix or part in self.parts):
            return None
        ending = name.rpartition(".")[2]
        return f"is a {ending if ending in ('weight', 'bias') else 'parameter'} that the config does not speak of"


def _numbered(name: str) -> Iterator[tuple[str, int]]:
    """Each number in a name, with the name around it: "layer.{}.up.weight", 3."""
    parts = name.split(".")
    for place, part in enumerate(parts):
        if part.isdecimal():
            yield ".".join((*parts[:place], "{}", *parts[place + 1 :])), int(part)
