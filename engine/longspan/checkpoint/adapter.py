"""LoRA adapters in PEFT's files, merged into a checkpoint's tensors as these are read."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..batch import Float32
from ..errors import CheckpointError
from .config import Fields
from .pickled import open_pickled
from .share import Share
from .tensor_view import TensorView, as_float32
from .tensors import Tensors

CONFIG, WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
PREFIX = "base_model.model."
MAGNITUDE = "lora_magnitude_vector"
SUPPORTED_BIAS = ("none", "all", "lora_only")
UNSUPPORTED = (
    *("target_parameters", "trainable_token_indices", "layer_replication", "alora_invocation_tokens"),
    *("use_qalora", "use_bdlora", "arrow_config", "kasa_config"),
)
ROLES = (
    *("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", MAGNITUDE, "lora_B_bias"),
    *("weight", "bias"),
)
CHANGE_THE_BASE = ("pissa", "corda", "olora", "loftq", "lora_ga")


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """What of `adapter_config.json` changes the merged weights; see PEFT's LoraConfig.

    Attributes:
        rank, alpha: the update is scaled by alpha / rank, or alpha / sqrt(rank) where `rank_stabilised` (rsLoRA).
        rank_patterns, alpha_patterns: other values for modules whose names end in what the pattern matches.
        transposed: the base weight is stored [in, out] (GPT-2).
        decomposed: DoRA (arXiv 2402.09353): each row has a magnitude of its own.
    """

    rank: int
    alpha: float
    rank_stabilised: bool
    rank_patterns: Mapping[str, float]
    alpha_patterns: Mapping[str, float]
    transposed: bool
    decomposed: bool

    def scale(self, module: str) -> float:
        """The factor of one module's update."""
        rank = _matching(self.rank_patterns, module, self.rank)
        alpha = _matching(self.alpha_patterns, module, self.alpha)
        return alpha / (math.sqrt(rank) if self.rank_stabilised else rank)


def _matching(patterns: Mapping[str, float], module: str, default: float) -> float:
    return next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module)), default)


def read_lora_config(folder: Path) -> LoraConfig:
    """Reads `adapter_config.json`.

    Raises:
        CheckpointError: it is missing, is no LoRA, or asks for what is not supported; the message names the field.
    """
    fields = Fields.read(folder / CONFIG)
    fields.require("peft_type", "LORA")
    bias = fields.optional_text("bias") or "none"
    if bias not in SUPPORTED_BIAS:
        raise fields.wrong("bias", f"is '{bias}'; known are {', '.join(SUPPORTED_BIAS)}")
    for name in UNSUPPORTED:
        if fields.values.get(name):
            raise fields.wrong(name, "is not supported")
    start = fields.values.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(CHANGE_THE_BASE):
        reason = f"is '{start}', which changes the base's weights too; save the adapter with PEFT's conversion to LoRA"
        raise fields.wrong("init_lora_weights", reason)
    rank = fields.integer("r")
    return LoraConfig(
        rank=rank,
        alpha=fields.number("lora_alpha", default=8.0),
        rank_stabilised=fields.flag("use_rslora", default=False),
        rank_patterns=_patterns(fields.table("rank_pattern"), Fields.integer),
        alpha_patterns=_patterns(fields.table("alpha_pattern"), Fields.number),
        transposed=fields.flag("fan_in_fan_out", default=False),
        decomposed=fields.flag("use_dora", default=False),
    )


def _patterns(fields: Fields, read: Callable[[Fields, str], float]) -> Mapping[str, float]:
    for pattern in fields.values:
        try:
            re.compile(pattern)
        except re.error as error:
            raise fields.wrong(pattern, f"is no regular expression: {error}") from None
    return {name: read(fields, name) for name in fields.values}


@dataclass(frozen=True, slots=True)
class Update:
    """One module's share of an adapter: low-rank factors by role ("lora_A", "lora_B", "lora_magnitude_vector", …)."""

    parts: Mapping[str, TensorView]
    scale: float
    config: LoraConfig

    def part(self, role: str) -> Float32 | None:
        """One of the factors, in float32."""
        view = self.parts.get(role)
        return None if view is None else as_float32(view.data, view.dtype)

    @property
    def factors(self) -> tuple[str, str]:
        """The roles of the two factors: the first takes the input, the second gives the output."""
        return ("lora_embedding_A", "lora_embedding_B") if self._of_embedding else ("lora_A", "lora_B")

    @property
    def _of_embedding(self) -> bool:
        return "lora_embedding_A" in self.parts or "lora_embedding_B" in self.parts

    @property
    def _transposed(self) -> bool:
        """Whether the base is stored [in, out], as an embedding's [vocabulary, width] always is."""
        return self._of_embedding or self.config.transposed

    def weight(self, base: Float32) -> Float32:
        """The merged weight, as the base's is stored."""
        rows = base.T if self._transposed else base
        a, b = (self.part(role) for role in self.factors)
        assert a is not None
        assert b is not None
        merged = rows + np.float32(self.scale) * (b @ a)
        magnitude = self.part(MAGNITUDE)
        if magnitude is not None:
            merged *= (magnitude.reshape(-1) / np.linalg.norm(merged, axis=1))[:, None]
        return np.ascontiguousarray(merged.T if self._transposed else merged)

    def bias(self, base: Float32) -> Float32:
        """The merged bias: an adapter of `lora_bias` has one of its own behind its second factor."""
        own = self.part("lora_B_bias")
        return base if own is None else base + np.float32(self.scale) * own

    def check(self, module: str, shape: tuple[int, ...], source: Path) -> None:
        """Raise a CheckpointError, which names `source`, unless it fits a weight of that shape."""
        first, second = self.factors
        for role in (first, second):
            if role not in self.parts:
                raise CheckpointError(f"{source}: the module '{module}' lacks {role}.")
        out, inner = self.parts[second].shape[0], self.parts[first].shape[-1]
        expected = (inner, out) if self._transposed else (out, inner)
        if shape != expected or self.parts[second].shape[-1] != self.parts[first].shape[0]:
            raise CheckpointError(
                f"{source}: the update of '{module}' has the shape {list(expected)}, but the weight is {list(shape)}."
            )
        magnitude = self.parts.get(MAGNITUDE)
        if self.config.decomposed != (magnitude is not None):
            says = "lacks" if self.config.decomposed else "has"
            decomposed = str(self.config.decomposed).lower()
            raise CheckpointError(
                f"{source}: the module '{module}' {says} {MAGNITUDE}, and 'use_dora' is {decomposed}."
            )
        if magnitude is not None and math.prod(magnitude.shape) != out:
            raise CheckpointError(
                f"{source}: the {MAGNITUDE} of '{module}' has the shape {list(magnitude.shape)}, expected [{out}]."
            )


def open_adapter(folder: Path) -> Tensors:
    """The tensors of an adapter, by their names in its file; raises as `Tensors.open`."""
    if not (folder / WEIGHTS).exists() and (folder / PICKLED).exists():
        return Tensors(folder / PICKLED, open_pickled(folder / PICKLED))
    return Tensors.open_file(folder / WEIGHTS)


def with_adapter(tensors: Tensors, folder: Path, share_of: Callable[[str], Share] = Share) -> Tensors:
    """A checkpoint's tensors with an adapter's updates.

    Args:
        tensors: the checkpoint's.
        folder: with `adapter_config.json` and `adapter_model.safetensors`, or `adapter_model.bin`.
        share_of: where the checkpoint has a module that it does not have by the adapter's name.

    Raises:
        CheckpointError: the adapter is not usable, or changes what the checkpoint does not have.
    """
    config = read_lora_config(folder)
    views = open_adapter(folder)
    merged = dict(tensors)
    for module, parts in _by_module(views).items():
        for role in parts:
            if role not in ROLES:
                raise CheckpointError(f"{views.source}: '{module}' has a '{role}', which is no part of a LoRA.")
        share = share_of(module) if _stored(f"{module}.weight", tensors) is None else Share(module)
        names = {ending: _stored(f"{share.module}.{ending}", tensors) for ending in ("weight", "bias")}
        stored = {ending: merged[name] for ending, name in names.items() if name is not None}
        update = None
        if any(role.startswith("lora_") for role in parts):
            if "weight" not in stored:
                raise CheckpointError(
                    f"{views.source}: the module '{module}' is not in the checkpoint {tensors.source}."
                )
            update = Update(parts, config.scale(module), config)
        for view in _changed(stored, module, share, parts, update, views.source):
            merged[view.name] = view
    return Tensors(tensors.source, merged)


def _changed(
    stored: Mapping[str, TensorView],
    module: str,
    share: Share,
    parts: Mapping[str, TensorView],
    update: Update | None,
    source: Path,
) -> Iterator[TensorView]:
    """What an adapter changes of a module's weight and bias: what it gives in their place, and that is updated."""
    given = {ending: parts[ending] for ending in stored if ending in parts}
    for ending, view in given.items():
        expected = share.shape(stored[ending].shape)
        if share.count > 1 and view.shape != expected:
            raise CheckpointError(
                f"{source}: '{module}.{ending}' has the shape {list(view.shape)}, expected {list(expected)}."
            )
    updates = {}
    if update is not None:
        shape = given["weight"].shape if "weight" in given else share.shape(stored["weight"].shape)
        update.check(module, shape, source)
        updates["weight"] = update.weight
        if "lora_B_bias" in parts:
            if "bias" not in stored:
                raise CheckpointError(f"{source}: '{module}' has an update of a bias that it does not have.")
            updates["bias"] = update.bias
    for ending in sorted(given.keys() | updates.keys()):
        yield share.changed(stored[ending], given.get(ending), updates.get(ending))


def read_updates(folder: Path) -> dict[str, Update]:
    """The updates of an adapter, by module; raises as `with_adapter`, but nothing is known of a checkpoint."""
    config = read_lora_config(folder)
    return {
        module: Update(parts, config.scale(module), config)
        for module, parts in _by_module(open_adapter(folder)).items()
    }


def _by_module(views: Tensors) -> dict[str, dict[str, TensorView]]:
    modules: dict[str, dict[str, TensorView]] = {}
    for name, view in views.items():
        path = name.removeprefix(PREFIX).replace(".modules_to_save", "").replace(".base_layer", "")
        match = re.fullmatch(
            r"(.+?)\.(lora_(?:A|B|embedding_A|embedding_B|magnitude_vector))(?:\.(weight|bias))?", path
        )
        if match:
            module, role, ending = match.groups()
            modules.setdefault(module, {})[f"{role}_bias" if ending == "bias" else role] = view
        else:
            module, _, ending = path.rpartition(".")
            modules.setdefault(module, {})[ending] = view
    return modules


def _stored(name: str, tensors: Tensors) -> str | None:
    """The name under which the checkpoint has a tensor of an adapter, which may name it from further out or in."""
    if name in tensors:
        return name
    inner = name
    while "." in inner:
        inner = inner.split(".", 1)[1]
        if inner in tensors:
            return inner
    return next((other for other in tensors if other.endswith(f".{name}")), None)
