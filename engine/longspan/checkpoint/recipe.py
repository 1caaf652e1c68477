"""What a model folder says about turning a text into a vector, in one immutable value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Literal

from ..errors import CheckpointError, CheckpointNotFoundError
from .config import Fields, json_kind, read_json_list
from .modules import (
    Activation,
    DenseModule,
    LayerNormModule,
    LayerPooling,
    NormalizeModule,
    Pooling,
    PoolingMode,
    TailModule,
    check_widths,
    read_dense,
    read_layer_norm,
    read_layer_pooling,
    read_normalize,
    read_pooling,
    require_folder,
)
from .separator import read_separator
from .transformer import TransformerModule, read_transformer

__all__ = [
    "Activation",
    "DenseModule",
    "LayerNormModule",
    "NormalizeModule",
    "PoolingMode",
    "Recipe",
    "SimilarityName",
    "TailModule",
    "read_recipe",
]

SimilarityName = Literal["cosine", "dot", "euclidean", "manhattan"]
SIMILARITIES: tuple[SimilarityName, ...] = ("cosine", "dot", "euclidean", "manhattan")
# sentence-transformers knows these prompts, as empty ones, for every model.
IMPLIED_PROMPTS = ("query", "document")
NAMESPACE = "sentence_transformers."
OPTIONS_FILE = "config_sentence_transformers.json"
TAIL: dict[str, Callable[[Path], TailModule]] = {
    "Dense": read_dense,
    "LayerNorm": read_layer_norm,
    "Normalize": read_normalize,
}
FIRST = ("Transformer", "StaticEmbedding")
SUPPORTED = (*FIRST, "WeightedLayerPooling", "Pooling", *TAIL, "Dropout")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to do with a text, from sentence-transformers' files or from a plain Hugging Face folder.

    Attributes:
        transformer: the folder with config.json, the weights and the tokenizer.
        max_seq_length: tokens of a text with its special tokens, where sentence-transformers would cut; None if
            nothing limits it. It is the checkpoint's word and may exceed the usable positions (RoBERTa's 514).
        lower_case: texts are lowered before the tokenizer's own normalisation.
        static: the model is a table of token vectors: without config.json, without special tokens.
        layer_pooling: None where the last layer's token vectors count alone.
        pooling: at least one mode; the vectors of several are concatenated in this order.
        include_prompt: False leaves the prompt's tokens out of the pooling.
        tail: what happens to the pooled vector, in order.
        prompts: (name, text), in the file's order.
        default_prompt_name: one of their names, or "query" or "document", which every model has.
        similarity_fn_name: None where the file does not say.
        truncate_dim: the vector is cut to this length after the tail; None leaves it whole.
        separator: the token that stands between the chunks of a document; None where they are joined as text.
    """

    transformer: Path
    max_seq_length: int | None
    lower_case: bool = False
    static: bool = False
    layer_pooling: LayerPooling | None = None
    pooling: tuple[PoolingMode, ...] = ("mean",)
    include_prompt: bool = True
    tail: tuple[TailModule, ...] = ()
    prompts: tuple[tuple[str, str], ...] = ()
    default_prompt_name: str | None = None
    similarity_fn_name: SimilarityName | None = None
    truncate_dim: int | None = None
    separator: str | None = None


def read_recipe(folder: Path) -> Recipe:
    """Reads a model folder; no weights are opened.

    Raises:
        CheckpointNotFoundError: a file that is needed does not exist.
        CheckpointError: a file is unreadable, contradictory, or asks for something that is not supported; the message
            names file and field.
    """
    if not (folder / "modules.json").exists():
        return _plain(folder)
    entries = _entries(folder / "modules.json")
    parts = _Parts()
    for entry in entries:
        parts.add(entry)
    transformer, pooling = parts.finished(folder / "modules.json")
    tail = tuple(parts.tail)
    check_widths(pooling, tail)
    options = Fields.read_optional(folder / OPTIONS_FILE)
    options.only("model_type", "SentenceTransformer")
    prompts = _prompts(options)
    return Recipe(
        transformer=transformer.folder,
        max_seq_length=transformer.max_seq_length,
        lower_case=transformer.lower_case,
        static=parts.static,
        layer_pooling=parts.layer_pooling if transformer.all_layers else None,
        pooling=pooling.modes,
        include_prompt=pooling.include_prompt,
        tail=tail,
        prompts=prompts,
        default_prompt_name=_default_prompt(options, dict(prompts)),
        similarity_fn_name=_similarity(options),
        truncate_dim=options.integer("truncate_dim"),
        separator=None if parts.static else read_separator(transformer.folder),
    )


def module_folders(folder: Path) -> tuple[Path, ...]:
    """A model folder, and those of its modules that exist, each once; raises as `read_recipe`."""
    entries = _entries(folder / "modules.json") if (folder / "modules.json").exists() else []
    places = dict.fromkeys((folder, *(folder / entry.path for entry in entries)))
    return tuple(place for place in places if place.is_dir())


def _plain(folder: Path) -> Recipe:
    """A Hugging Face folder: the mean of the tokens, or the last one of a causal language model."""
    if not (folder / "config.json").exists():
        raise CheckpointNotFoundError(f"{folder} is not a model: it has neither config.json nor modules.json.")
    transformer = read_transformer(folder, saved=False)
    config = Fields.read(folder / "config.json")
    architectures = config.values.get("architectures") or []
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        raise config.wrong("architectures", "must be a list of strings")
    causal = bool(architectures) and architectures[0].endswith("ForCausalLM")
    if causal and config.values.get("is_causal", True) is not None:
        causal = config.boolean("is_causal", True)
    elif causal:  # sentence-transformers takes null for False
        causal = False
    return Recipe(
        transformer.folder,
        transformer.max_seq_length,
        pooling=("lasttoken",) if causal else ("mean",),
        separator=read_separator(folder),
    )


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry of modules.json: its class's name and its folder's path."""

    file: Path
    kind: str
    type: str
    path: str


def _entries(path: Path) -> list[_Entry]:
    entries = []
    names: set[str] = set()
    for place, value in enumerate(read_json_list(path)):
        if not isinstance(value, dict):
            raise CheckpointError(f"{path}: entry {place} must be an object, not {json_kind(value)}.")
        fields = Fields(path, value, f"{place}.")
        name, module_path, module_type = fields.text("name"), fields.text("path"), fields.text("type")
        if module_type is None or module_path is None:
            raise fields.wrong("type" if module_type is None else "path", "is missing")
        if name is not None and name in names:  # sentence-transformers would drop the first of the two
            raise fields.wrong("name", f"is '{name}', which an earlier entry has too")
        names.update([] if name is None else [name])
        relative = PureWindowsPath(module_path)
        if relative.anchor or ".." in relative.parts or "\0" in module_path:
            raise fields.wrong("path", f"is {module_path!r}; a path inside the folder is needed")
        if not module_type.startswith(NAMESPACE):
            raise fields.wrong("type", f"is '{module_type}', code of its own, which is not run; {_supported()}")
        entries.append(_Entry(path, module_type.rpartition(".")[2], module_type, module_path))
    return entries


def _supported() -> str:
    return f"supported are {', '.join(SUPPORTED)}"


@dataclass(slots=True)
class _Parts:
    """The modules so far; `add` keeps them in the one order that makes sense: transformer, pooling, tail."""

    transformer: TransformerModule | None = None
    static: bool = False
    layer_pooling: LayerPooling | None = None
    pooling: Pooling | None = None
    tail: list[TailModule] = field(default_factory=list)

    def add(self, entry: _Entry) -> None:
        if entry.kind not in SUPPORTED:
            raise CheckpointError(f"{entry.file}: the module type '{entry.type}' is not supported; {_supported()}.")
        if entry.kind == "Dropout":  # does nothing outside training
            return
        if (entry.kind in FIRST) != (self.transformer is None):
            raise CheckpointError(f"{entry.file}: one {' or '.join(FIRST)} must come first, found '{entry.type}'.")
        if entry.kind == "StaticEmbedding":  # means over its tokens
            self.transformer = TransformerModule(require_folder(entry.file, entry.path), None, lower_case=False)
            self.static, self.pooling = True, Pooling(("mean",))
        elif entry.kind == "Transformer":
            folder = require_folder(entry.file, entry.path)
            self.transformer = read_transformer(folder, saved=True)
        elif entry.kind == "WeightedLayerPooling" and self.pooling is None and self.layer_pooling is None:
            self.layer_pooling = read_layer_pooling(require_folder(entry.file, entry.path))
        elif (entry.kind == "Pooling") != (self.pooling is None):
            raise CheckpointError(f"{entry.file}: one Pooling must follow the Transformer, found '{entry.type}'.")
        elif entry.kind == "Pooling":
            self.pooling = read_pooling(require_folder(entry.file, entry.path))
        else:
            self.tail.append(TAIL[entry.kind](entry.file.parent / entry.path))

    def finished(self, file: Path) -> tuple[TransformerModule, Pooling]:
        if self.transformer is None or self.pooling is None:
            missing = "Transformer" if self.transformer is None else "Pooling"
            raise CheckpointError(f"{file} has no {missing} module; a Transformer and a Pooling are needed.")
        return self.transformer, self.pooling


def _prompts(options: Fields) -> tuple[tuple[str, str], ...]:
    table = options.table("prompts")
    return tuple((name, table.text(name) or "") for name in table.values)


def _default_prompt(options: Fields, prompts: Mapping[str, str]) -> str | None:
    name = options.text("default_prompt_name")
    if name is not None and name not in prompts and name not in IMPLIED_PROMPTS:
        known = ", ".join(prompts) or "none"
        raise options.wrong("default_prompt_name", f"is '{name}', which is not among the prompts ({known})")
    return name


def _similarity(options: Fields) -> SimilarityName | None:
    """An unknown name counts as none, as in sentence-transformers: it changes no vector."""
    name = options.text("similarity_fn_name")
    return next((known for known in SIMILARITIES if known == name), None)
