"""The modules after the transformer: pooling, and the tail that works on one vector per text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ..errors import CheckpointError, CheckpointNotFoundError
from .config import Fields, json_kind

PoolingMode = Literal["cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
Activation = Literal["identity", "tanh", "gelu", "relu", "silu"]

# The fields of the schema before sentence-transformers 5.4, in the order in which it concatenates their vectors.
POOLING_FIELDS: dict[str, PoolingMode] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# By the class name of torch.nn; its GELU without arguments is the one by erf.
ACTIVATIONS: dict[str, Activation] = {
    "Identity": "identity",
    "Tanh": "tanh",
    "GELU": "gelu",
    "ReLU": "relu",
    "SiLU": "silu",
}


@dataclass(frozen=True, slots=True)
class Pooling:
    """How token vectors become one vector; several modes are concatenated in their order.

    Attributes:
        modes: at least one, as `checked_mode` takes them.
        include_prompt: False leaves the prompt's tokens out of the pooling, not out of the attention.
        own_tokens: all that precedes a text's own tokens is left out, and the first of these has the position weight 1.
        width: of the token vectors, where the file says so.
    """

    modes: tuple[str, ...]
    include_prompt: bool = True
    own_tokens: bool = False
    width: int | None = None


@dataclass(frozen=True, slots=True)
class LayerPooling:
    """Token vectors as the weighted mean of the outputs of layers `first` to the last, 0 being the embedding.

    The weights are `layer_weights`, one a layer, in `folder / "model.safetensors"`.
    """

    folder: Path
    first: int
    layers: int

    @property
    def count(self) -> int:
        """How many outputs there are."""
        return self.layers + 1 - self.first


@dataclass(frozen=True, slots=True)
class DenseModule:
    """activation(x @ linear.weight.T + linear.bias), plus x if `use_residual`.

    The weights lie in `folder / "model.safetensors"`. A residual of another width than the output goes through
    `residual.weight` there, which has no bias.
    """

    folder: Path
    in_features: int
    out_features: int
    bias: bool
    activation: Activation
    use_residual: bool


@dataclass(frozen=True, slots=True)
class LayerNormModule:
    """A LayerNorm with `norm.weight` and `norm.bias` in `folder / "model.safetensors"`."""

    folder: Path
    dimension: int
    eps: float = 1e-5


@dataclass(frozen=True, slots=True)
class NormalizeModule:
    """x / max(|x|, 1e-12)."""


@dataclass(frozen=True, slots=True)
class TanhQuantizeModule:
    """round(127 tanh(x)), ties to even: the integers that pplx-embed's own `FlexibleQuantizer` gives, as floats."""


TailModule = DenseModule | LayerNormModule | NormalizeModule | TanhQuantizeModule


def read_pooling(folder: Path) -> Pooling:
    """Reads either schema of `1_Pooling/config.json`; `pooling_mode`, where given, outweighs the older booleans."""
    fields = Fields.read(folder / "config.json")
    width = fields.optional_integer("embedding_dimension") or fields.optional_integer("word_embedding_dimension")
    if "pooling_mode" in fields.values:
        modes = _named_modes(fields)
    else:
        modes = tuple(mode for name, mode in POOLING_FIELDS.items() if fields.flag(name, default=False))
    return Pooling(modes or ("mean",), fields.flag("include_prompt", default=True), width=width)


def _named_modes(fields: Fields) -> tuple[str, ...]:
    value = fields.values["pooling_mode"]
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names:
        raise fields.wrong("pooling_mode", f"must be a string or a list of strings, not {json_kind(value)}")
    try:
        return tuple(checked_mode(name) for name in names)
    except ValueError as error:
        raise fields.wrong("pooling_mode", str(error)) from None


def checked_mode(name: object) -> str:
    """The name of a pooling.

    It is a `PoolingMode`, "lasttoken:8" for the mean of the last 8 tokens, or "token:[MASK]" for that of the tokens
    [MASK]; the last two are unknown to sentence-transformers.

    Raises:
        ValueError: it is none; the message goes on from the name of an option.
    """
    kind, colon, argument = name.partition(":") if isinstance(name, str) else ("", "", "")
    if kind in get_args(PoolingMode) and not colon:
        return str(name)
    if kind == "lasttoken" and argument.isascii() and argument.isdigit() and int(argument) > 0:
        return str(name)
    if kind == "token" and argument:
        return str(name)
    raise ValueError(f"is {name!r}; known are {', '.join(get_args(PoolingMode))}, lasttoken:COUNT, token:TOKEN")


def pooling_fields(modes: tuple[str, ...], *, include_prompt: bool) -> dict[str, object]:
    """What config.json says of a pooling, in the oldest schema that can: that is read by most versions."""
    said: dict[str, object] = {name: mode in modes for name, mode in POOLING_FIELDS.items()}
    if tuple(mode for mode in POOLING_FIELDS.values() if mode in modes) != modes:
        said = {"pooling_mode": modes[0] if len(modes) == 1 else list(modes)}
    return said if include_prompt else {**said, "include_prompt": False}


def read_layer_pooling(folder: Path) -> LayerPooling:
    """Reads `N_WeightedLayerPooling/config.json`."""
    fields = Fields.read(folder / "config.json")
    layers = fields.optional_integer("num_hidden_layers") or 12
    first = fields.values.get("layer_start", 4)
    if not isinstance(first, int) or isinstance(first, bool) or not 0 <= first <= layers:
        raise fields.wrong("layer_start", f"must be an integer from 0 to {layers}, not {first!r}")
    return LayerPooling(folder, first, layers)


def read_dense(folder: Path) -> DenseModule:
    """Reads `N_Dense/config.json`."""
    fields = Fields.read(folder / "config.json")
    _check_names(fields)
    return DenseModule(
        folder=folder,
        in_features=fields.integer("in_features"),
        out_features=fields.integer("out_features"),
        bias=fields.flag("bias", default=True),
        activation=_activation(fields),
        use_residual=fields.flag("use_residual", default=False),
    )


def _activation(fields: Fields) -> Activation:
    if "activation_function" not in fields.values:
        return "tanh"
    path = fields.optional_text("activation_function") or "null"
    *package, name = path.split(".")
    if package[:2] != ["torch", "nn"] or name not in ACTIVATIONS:
        known = ", ".join(f"torch.nn.{name}" for name in ACTIVATIONS)
        raise fields.wrong("activation_function", f"is '{path}'; known are {known}")
    return ACTIVATIONS[name]


def read_layer_norm(folder: Path) -> LayerNormModule:
    """Reads `N_LayerNorm/config.json`."""
    return LayerNormModule(folder, Fields.read(folder / "config.json").integer("dimension"))


def read_normalize(folder: Path) -> NormalizeModule:
    """Reads `N_Normalize`, whose folder may be empty or missing."""
    _check_names(Fields.read_optional(folder / "config.json"))
    return NormalizeModule()


def _check_names(fields: Fields) -> None:
    """A tail works on the vector of a text; modules on token vectors belong to multi-vector models."""
    for name in ("module_input_name", "module_output_name"):
        fields.require(name, "sentence_embedding")


def check_widths(pooling: Pooling, tail: tuple[TailModule, ...]) -> None:
    """Checks that every module takes what the one before it gives.

    Raises:
        CheckpointError: names the file and the field that contradicts the module before.
    """
    width = None if pooling.width is None else pooling.width * len(pooling.modes)
    for module in tail:
        if isinstance(module, DenseModule):
            field, expected, given = "in_features", module.in_features, module.out_features
        elif isinstance(module, LayerNormModule):
            field, expected, given = "dimension", module.dimension, module.dimension
        else:
            continue
        if width is not None and expected != width:
            raise CheckpointError(
                f"{module.folder / 'config.json'}: '{field}' is {expected}, "
                f"but the module before it gives vectors of {width}."
            )
        width = given


def require_folder(named_by: Path, folder: Path) -> Path:
    """The folder of a module that must exist."""
    if not folder.is_dir():
        raise CheckpointNotFoundError(f"{folder} does not exist, but {named_by} names it; download it again.")
    return folder
