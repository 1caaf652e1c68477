"""What a model folder says about turning a text into a vector, in one immutable value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from ..errors import CheckpointError, CheckpointNotFoundError, InputError
from .adaptations import file_adaptations
from .choices import NOTHING, Choices, variants
from .config import Fields
from .conventions import JINA_V5, Convention, is_jina_v5, read_convention
from .entries import ADAPTED, FIRST, SUPPORTED, Entry, read_entries, supported
from .files import Find, TransformerFiles, find_files
from .folder import MARKERS, find_model
from .modules import (
    Activation,
    DenseModule,
    LayerNormModule,
    LayerPooling,
    NormalizeModule,
    Pooling,
    PoolingMode,
    TailModule,
    TanhQuantizeModule,
    check_widths,
    read_dense,
    read_layer_norm,
    read_layer_pooling,
    read_normalize,
    read_pooling,
    require_folder,
)
from .router import UNKNOWN_TASK, expanded, module_entries, tasks_of
from .separator import read_separator
from .transformer import TransformerModule, read_transformer

__all__ = [
    "Activation",
    "Adaptation",
    "DenseModule",
    "LayerNormModule",
    "NormalizeModule",
    "PoolingMode",
    "Recipe",
    "Recipes",
    "SimilarityName",
    "TailModule",
    "TanhQuantizeModule",
    "read_recipe",
    "read_recipes",
]

SimilarityName = Literal["cosine", "dot", "euclidean", "manhattan"]
SIMILARITIES: tuple[SimilarityName, ...] = ("cosine", "dot", "euclidean", "manhattan")
# sentence-transformers knows these prompts, as empty ones, for every model.
IMPLIED_PROMPTS = ("query", "document")
MODULES_FILE = "modules.json"
OPTIONS_FILE = "config_sentence_transformers.json"
TAIL: dict[str, Callable[[Path], TailModule]] = {
    "Dense": read_dense,
    "LayerNorm": read_layer_norm,
    "Normalize": read_normalize,
    "FlexibleQuantizer": lambda folder: TanhQuantizeModule(),
}


@dataclass(frozen=True, slots=True)
class Adaptation:
    """A task for which a checkpoint has low-rank pairs: its name, which may be that of a prompt too, and its number."""

    name: str
    index: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to do with a text, from sentence-transformers' files or from a plain Hugging Face folder.

    Attributes:
        files: where the transformer's config.json, its weights and its tokenizer are.
        max_seq_length: tokens of a text with its special tokens, where sentence-transformers would cut; None if
            nothing limits it. It is the checkpoint's word and may exceed the usable positions (RoBERTa's 514).
        lower_case: texts are lowered before the tokenizer's own normalisation.
        static: the model is a table of token vectors: without config.json, without special tokens.
        layer_pooling: None where the last layer's token vectors count alone.
        pooling: at least one mode, as `checked_mode` takes them; the vectors of several are concatenated in this order.
        include_prompt: False leaves the prompt's tokens out of the pooling.
        own_tokens: all that precedes a text's own tokens is left out, and the first of these has the position weight 1.
        both_sides: tokens see both sides, whatever config.json says.
        wrap: what stands before and behind every text and its prompt, which are stripped then.
        convention: that of the folder, where authors' code says all this and no file of sentence-transformers.
        tail: what happens to the pooled vector, in order.
        prompts: (name, text), in the file's order.
        default_prompt_name: one of their names, or "query" or "document", which every model has.
        similarity_fn_name: None where the file does not say.
        truncate_dim: the vector is cut to this length after the tail; None leaves it whole.
        separator: the token that stands between the chunks of a document; None where they are joined as text.
        adaptation: what is added to the transformer's weights; None for the weights alone.
    """

    files: TransformerFiles
    max_seq_length: int | None
    lower_case: bool = False
    static: bool = False
    layer_pooling: LayerPooling | None = None
    pooling: tuple[str, ...] = ("mean",)
    include_prompt: bool = True
    own_tokens: bool = False
    both_sides: bool = False
    wrap: tuple[str, str] | None = None
    convention: Convention | None = None
    tail: tuple[TailModule, ...] = ()
    prompts: tuple[tuple[str, str], ...] = ()
    default_prompt_name: str | None = None
    similarity_fn_name: SimilarityName | None = None
    truncate_dim: int | None = None
    separator: str | None = None
    adaptation: Adaptation | None = None


@dataclass(frozen=True, slots=True)
class Recipes:
    """The recipes of a model folder: one, or one for each route of a Router and each task with an adaptation.

    Attributes:
        all: each once, all with the same prompts, similarity and `truncate_dim`.
        tasks: task → place in `all`; None stands for a call without a task.
        other: the place for tasks that have none there; None if they are refused.
    """

    all: tuple[Recipe, ...]
    tasks: Mapping[str | None, int]
    other: int | None

    def place(self, task: str | None) -> int:
        """The place in `all` of the recipe for a task; raises an InputError if there is none."""
        place = self.tasks.get(task, None if task is None else self.other)
        if place is None:
            what = "the model needs a task" if task is None else f"there is no task {task!r}"
            raise InputError(f"{what}; known are {', '.join(repr(name) for name in self.tasks if name is not None)}")
        return place

    @property
    def main(self) -> Recipe:
        """That of a call without a task, else the first."""
        return self.all[self.tasks.get(None, 0)]


def read_recipes(
    folder: Path, choices: Choices = NOTHING, adapter: Path | None = None, find: Find = find_model
) -> Recipes:
    """Reads a model folder; no weights are opened.

    Args:
        folder: the model's.
        choices: what a caller chooses.
        adapter: the folder of a LoRA that is merged into it.
        find: finds the model that an adapter is for, where the folder is one.

    Raises:
        InputError: a choice does not fit it.
        CheckpointNotFoundError: a file that is needed does not exist.
        CheckpointError: a file is unreadable, contradictory, or asks for something that is not supported; the message
            names file and field.
    """
    if not (folder / MODULES_FILE).exists():
        choices.check([])
        return _adapted(Recipes((_plain(folder, choices, adapter, find),), {None: 0}, 0))
    entries = read_entries(folder / MODULES_FILE)
    chains: dict[tuple[Entry, ...], int] = {}
    tasks: dict[str | None, int] = {}
    for task in (*tasks_of(entries), None, UNKNOWN_TASK):
        chain = expanded(entries, task)
        if chain is not None:
            tasks[task] = chains.setdefault(choices.chain(chain), len(chains))
    if not chains:
        raise CheckpointError(f"{folder / MODULES_FILE}: its Routers have no route in common.")
    choices.check(list(chains))
    other = tasks.pop(UNKNOWN_TASK, None)
    return _adapted(Recipes(tuple(_routed(folder, chain, choices, find) for chain in chains), tasks, other))


def read_recipe(folder: Path) -> Recipe:
    """The recipe of a call without a task, else the first; raises as `read_recipes`."""
    return read_recipes(folder).main


def _adapted(recipes: Recipes) -> Recipes:
    """The recipes, and one more for each task that the transformer on its route has an adaptation for."""
    declared = [file_adaptations(recipe.files.config) for recipe in recipes.all]
    known = [own for own in declared if own is not None]
    if not known:
        return recipes
    instructions = {name: text for own in known for name, text in own.instructions.items()}
    names = dict.fromkeys(name for own in known for name in own.tasks)
    own_prompts = dict(recipes.main.prompts)
    prompts = tuple({**own_prompts, **instructions, **own_prompts}.items())
    found = [replace(recipe, prompts=prompts) for recipe in recipes.all]
    tasks, other = dict(recipes.tasks), recipes.other
    for name in names:
        place = tasks.get(name, other)
        own = None if place is None else declared[place]
        if place is not None and own is not None and name in own.tasks:
            tasks[name] = len(found)
            found.append(replace(found[place], adaptation=Adaptation(name, own.tasks.index(name))))
    own = None if other is None else declared[other]
    if own is not None and other is not None:  # its code refuses other tasks
        usual = None if own.needed else other
        aliases = {alias: tasks.get(name, usual) for alias, name in own.retrieval.items()}
        tasks = {**{alias: place for alias, place in aliases.items() if place is not None}, **tasks}
        if own.needed:
            del tasks[None]
        other = None
    return Recipes(tuple(found), tasks, other)


def _routed(folder: Path, chain: Sequence[Entry], choices: Choices, find: Find) -> Recipe:
    """The recipe of modules without a Router among them."""
    parts = _Parts(find)
    for entry in chain:
        parts.add(entry)
    transformer, said = parts.finished(folder / MODULES_FILE)
    if parts.static and choices.pooling is not None:
        raise InputError(f"{transformer.files.folder} is a table of token vectors: their mean is its only pooling")
    pooling, tail = choices.pooled(said), tuple(parts.tail)
    check_widths(pooling, tail)
    options = Fields.read_optional(folder / OPTIONS_FILE)
    options.require("model_type", "SentenceTransformer")
    prompts = _prompts(options)
    return Recipe(
        files=transformer.files,
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
        truncate_dim=options.optional_integer("truncate_dim"),
        separator=None if parts.static else read_separator(transformer.files),
    )


def module_folders(folder: Path) -> tuple[Path, ...]:
    """A model folder, and those of its modules that exist, each once; raises as `read_recipes`.

    Of a Dense it is those of all its variants.
    """
    places = {folder: None}
    for entry in modules_of(folder):
        places.update(dict.fromkeys((entry.folder, *(variants(entry) if entry.kind == "Dense" else ()))))
    return tuple(place for place in places if place.is_dir())


def modules_of(folder: Path) -> tuple[Entry, ...]:
    """The modules that a model folder names, in its Routers too; a plain one names none."""
    return tuple(module_entries(read_entries(folder / MODULES_FILE))) if (folder / MODULES_FILE).exists() else ()


def _plain(folder: Path, choices: Choices, adapter: Path | None, find: Find) -> Recipe:
    """A Hugging Face folder: the mean of the tokens, or the last one of a causal language model."""
    if not any((folder / marker).exists() for marker in MARKERS):
        raise CheckpointNotFoundError(f"{folder} is not a model: it has none of {', '.join(MARKERS)}.")
    files = find_files(folder, find)
    convention = read_convention(files, adapter)
    transformer = read_transformer(files, saved=False, chat=convention is None and choices.pooling is None)
    usual = Convention(Pooling(("lasttoken",) if _is_causal(files.config) else ("mean",)))
    known, convention = convention, convention or usual
    pooling = choices.pooled(convention.pooling)
    return Recipe(
        files,
        convention.max_seq_length or transformer.max_seq_length,
        pooling=pooling.modes,
        include_prompt=pooling.include_prompt,
        own_tokens=pooling.own_tokens,
        both_sides=convention.both_sides,
        wrap=convention.wrap,
        convention=known,
        tail=convention.tail,
        prompts=convention.prompts,
        default_prompt_name=convention.default_prompt_name,
        separator=read_separator(files),
    )


def _is_causal(path: Path) -> bool:
    """Whether the config.json of a plain folder is a causal language model's."""
    config = Fields.read(path)
    architectures = config.names("architectures")
    causal = bool(architectures) and architectures[0].endswith("ForCausalLM")
    if not causal or config.values.get("is_causal", True) is None:  # sentence-transformers takes null for False
        return False
    return config.flag("is_causal", default=True)


@dataclass(slots=True)
class _Parts:
    """The modules so far; `add` keeps them in the one order that makes sense: transformer, pooling, tail."""

    find: Find
    transformer: TransformerModule | None = None
    static: bool = False
    layer_pooling: LayerPooling | None = None
    pooling: Pooling | None = None
    tail: list[TailModule] = field(default_factory=list)

    def add(self, entry: Entry) -> None:
        if entry.kind not in SUPPORTED:
            raise CheckpointError(f"{entry.file}: the module type '{entry.type}' is not supported; {supported()}.")
        if entry.kind == "Dropout":  # does nothing outside training
            return
        if (entry.kind in FIRST) != (self.transformer is None):
            raise CheckpointError(f"{entry.file}: one {' or '.join(FIRST)} must come first, found '{entry.type}'.")
        if entry.kind == "StaticEmbedding":  # means over its tokens
            folder = require_folder(entry.file, entry.folder)
            self.transformer = TransformerModule(TransformerFiles.inside(folder), None, lower_case=False)
            self.static, self.pooling = True, Pooling(("mean",))
        elif entry.kind == "Transformer":
            folder = require_folder(entry.file, entry.folder)
            self.transformer = read_transformer(find_files(folder, self.find), saved=True)
            if entry.type == ADAPTED and is_jina_v5(folder / "config.json"):  # it pools and normalises by itself
                self.pooling, self.tail = JINA_V5.pooling, [*JINA_V5.tail]
        elif entry.kind == "WeightedLayerPooling" and self.pooling is None and self.layer_pooling is None:
            self.layer_pooling = read_layer_pooling(require_folder(entry.file, entry.folder))
        elif (entry.kind == "Pooling") != (self.pooling is None):
            raise CheckpointError(f"{entry.file}: one Pooling must follow the Transformer, found '{entry.type}'.")
        elif entry.kind == "Pooling":
            self.pooling = read_pooling(require_folder(entry.file, entry.folder))
        else:
            self.tail.append(TAIL[entry.kind](entry.folder))

    def finished(self, file: Path) -> tuple[TransformerModule, Pooling]:
        if self.transformer is None or self.pooling is None:
            missing = "Transformer" if self.transformer is None else "Pooling"
            raise CheckpointError(f"{file} has no {missing} module; a Transformer and a Pooling are needed.")
        return self.transformer, self.pooling


def _prompts(options: Fields) -> tuple[tuple[str, str], ...]:
    table = options.table("prompts")
    return tuple((name, table.optional_text(name) or "") for name in table.values)


def _default_prompt(options: Fields, prompts: Mapping[str, str]) -> str | None:
    name = options.optional_text("default_prompt_name")
    if name is not None and name not in prompts and name not in IMPLIED_PROMPTS:
        known = ", ".join(prompts) or "none"
        raise options.wrong("default_prompt_name", f"is '{name}', which is not among the prompts ({known})")
    return name


def _similarity(options: Fields) -> SimilarityName | None:
    """An unknown name counts as none, as in sentence-transformers: it changes no vector."""
    name = options.optional_text("similarity_fn_name")
    return next((known for known in SIMILARITIES if known == name), None)
