"""Writes a model folder: a checkpoint's own files, and what was set since, where the next reader looks for it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, Any

from ..errors import InputError
from ..syncing import sync_file, sync_folder
from ..text.conversion import SOURCES
from ..weights import Format
from . import panels, pickled
from .adaptations import file_adaptations
from .adapter import CONFIG as ADAPTER
from .choices import Choices
from .config import read_json, read_json_list
from .conventions import Convention
from .entries import read_entries
from .extras import FILE, Extras, Inside
from .folder import ALLOWED_FILES, IGNORED_FILES
from .modules import POOLING_FIELDS, pooling_fields, read_pooling
from .recipe import IMPLIED_PROMPTS, MODULES_FILE, OPTIONS_FILE, Recipe, Recipes, module_folders, modules_of
from .settings import Settings
from .tensors import INDEX, Tensors
from .transformer import SETTINGS_FILES, UNLIMITED, settings_with_length
from .writing import NewTensor, write_tensors

COPIED = (*ALLOWED_FILES, "*.md", "LICENSE*", "NOTICE*", "custom_st.py", "st_quantize.py")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json")
POOLING = frozenset({*POOLING_FIELDS, "pooling_mode", "include_prompt"})
FICLONE = 0x40049409  # Linux's ioctl that lets two files share their blocks until one of them is written to
README = "README.md"
PANELS_NOTICE = """\
> **Only Longspan reads this folder.** Its weights are in `{file}`, in {weights} and in the layout of Longspan's CPU
> kernels: `longspan.Encoder` maps them as they are. transformers and sentence-transformers find no weights here; for
> them, for a GPU, and for other formats of weights, take the checkpoint that this was made of.
"""
INSIDE_NOTICE = """\
> **Only Longspan gives this folder's vectors.** `{file}` says {said}, and `longspan.Encoder` runs the model so.
> transformers and sentence-transformers pass over it and run the whole model as it was: other vectors.
"""
NOTICES = re.compile(rb"> \*\*Only Longspan .*\n(?:> .*\n)*\n?")


@dataclass(frozen=True, slots=True, eq=False)
class NewWeights:
    """The weights of a transformer as they are to be.

    Attributes:
        file: its name.
        tensors: all there are.
        metadata: of the file.
        format: of matrices in panels; None where the file is a checkpoint's.
    """

    file: str
    tensors: tuple[NewTensor, ...]
    metadata: Mapping[str, str]
    format: Format | None = None


@dataclass(frozen=True, slots=True)
class SavedModel:
    """What a folder is to hold.

    Attributes:
        source: the checkpoint's folder.
        recipes: what it says, with what was chosen.
        choices: what was chosen.
        lengths: for each recipe, the tokens that the model is to see at a time.
        width: of its token vectors.
        settings: what the new folder says instead.
        inside: what was chosen of its inside.
        weights: by the folders of transformers, what is not copied.
    """

    source: Path
    recipes: Recipes
    choices: Choices
    lengths: tuple[int, ...]
    width: int
    settings: Settings
    inside: Inside
    weights: Mapping[Path, NewWeights]

    @property
    def format(self) -> Format | None:
        """The format of weights in panels; None where there are none."""
        return next((new.format for new in self.weights.values() if new.format is not None), None)


def save_model(model: SavedModel, target: Path) -> None:
    """Writes the folder under another name beside its place, and moves it there once it is whole and on the disk.

    Raises:
        InputError: the place is taken, the folder around it does not exist, or a setting has no place in the files.
        OSError: a file cannot be read or written; nothing is left behind.
    """
    target = Path(os.path.realpath(os.path.expanduser(target)))
    if not target.parent.is_dir():
        raise InputError(f"the folder {target.parent} does not exist")
    _check_free(target)
    work = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    work.mkdir()
    try:
        _fill(model, work)
        _move(work, target)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    sync_folder(target.parent)


def _check_free(target: Path) -> None:
    if target.is_dir():
        if any(target.iterdir()):
            raise InputError(f"{target} is not empty; give a folder that does not exist yet, or an empty one")
    elif target.exists():
        raise InputError(f"{target} is a file; give a folder")


def _move(work: Path, target: Path) -> None:
    try:
        os.rename(work, target)  # takes the place of an empty folder
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):  # somebody was quicker
            _check_free(target)
        raise


def _fill(model: SavedModel, work: Path) -> None:
    files = {
        name: (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
        for name, document in _documents(model).items()
    }
    files.update(_readme(model))
    for place, path in _copied(model).items():
        if place.as_posix() not in files:
            with path.open("rb") as source, _new(work / place) as copy:
                if not _shared(source.fileno(), copy.fileno()):
                    shutil.copyfileobj(source, copy, 1 << 20)
    for transformer, new in model.weights.items():
        with _new(work / transformer.relative_to(model.source) / new.file) as file:
            write_tensors(file, new.tensors, new.metadata)
    for name, content in files.items():
        with _new(work / name) as file:
            file.write(content)
    for folder, _, _ in os.walk(work, topdown=False):
        sync_folder(Path(folder))


def _copied(model: SavedModel) -> dict[Path, Path]:
    """The checkpoint's files by their places: those at its top and in its modules' folders, and its weights.

    Where a transformer's folder is an adapter alone, it gets the config.json and the tokenizer that it had elsewhere.
    """
    paths: set[Path] = set()
    found: dict[Path, Path] = {}
    for files in dict.fromkeys(recipe.files for recipe in model.recipes.all):
        if files.folder not in model.weights:
            paths.update(view.file for view in Tensors.open(files.folder).values())
        said = [own.file for recipe in model.recipes.all if (own := recipe.convention) and own.file]
        for path in (files.config, *said, *(files.tokenizer / name for name in (*TOKENIZER, *SOURCES))):
            if path.parent != files.folder and path.exists():
                found[files.folder.relative_to(model.source) / path.name] = path
        new, adaptations = model.weights.get(files.folder), file_adaptations(files.config)
        if adaptations is not None and (new is None or new.format is None):  # panels have them inside
            paths.update(path for folder in adaptations.folders for path in folder.glob("adapter_*"))
    for folder in module_folders(model.source):
        paths.update(path for path in folder.iterdir() if path.is_file() and _is_wanted(path.name))
    kept = (path for path in paths if path.parent not in model.weights or not _is_weights(path.name))
    return dict(sorted({**found, **{path.relative_to(model.source): path for path in kept}}.items()))


def _is_wanted(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in COPIED) and not any(fnmatch(name, it) for it in IGNORED_FILES)


def _is_weights(name: str) -> bool:
    """Whether it is replaced by new weights: those of a checkpoint, or of the adapter that is merged into them."""
    return name.endswith(".safetensors") or name in (INDEX, pickled.INDEX, ADAPTER)


def _readme(model: SavedModel) -> dict[str, bytes]:
    """The checkpoint's own words with a notice before them, but behind their metadata; none without a notice."""
    path = model.source / README
    own = path.read_bytes() if path.exists() else b""
    words, old = NOTICES.subn(b"", own)
    inside = model.inside.as_json()
    if model.format is not None:
        notice = PANELS_NOTICE.format(file=panels.FILE, weights=model.format)
    elif inside:
        notice = INSIDE_NOTICE.format(file=FILE, said=" and ".join(f"`{name}`" for name in inside))
    else:
        return {README: words} if old else {}
    metadata = re.match(rb"---\n.*?\n---\n", words, re.DOTALL)
    end = metadata.end() if metadata else 0
    return {README: words[:end] + notice.encode() + (b"\n" + words[end:] if words[end:] else b"")}


@contextlib.contextmanager
def _new(path: Path) -> Iterator[IO[bytes]]:
    """A file that does not exist yet, in a folder that may not either; on the disk in the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        yield file
        sync_file(file)


def _shared(source: int, copy: int) -> bool:
    """Whether the file system could share the blocks, which costs neither time nor room."""
    with contextlib.suppress(OSError):
        fcntl.ioctl(copy, FICLONE, source)
        return True
    return False


# --- what differs from the source ------------------------------------------------------------------------------------


def _documents(model: SavedModel) -> dict[str, Any]:
    """JSON files by their place, as they are to be; all others are copied."""
    extras = Extras(model.settings.long_text, model.settings.ranges, model.format, model.inside)
    documents: dict[str, Any] = {FILE: extras.as_json()}
    if model.recipes.main.convention is not None:
        return documents | _kept(model, model.recipes.main, model.recipes.main.convention)
    saved = (model.source / MODULES_FILE).exists()
    # Only beside modules.json does sentence-transformers read settings.
    documents |= dict(_changed_modules(model)) if saved else _modules(model)
    options = read_json(model.source / OPTIONS_FILE) if saved and (model.source / OPTIONS_FILE).exists() else {}
    changed = _changed_options(model)
    if changed or not saved:
        documents[OPTIONS_FILE] = {**options, **changed}
    for recipe, length in zip(model.recipes.all, model.lengths, strict=True) if saved else ():
        if recipe.static and length < UNLIMITED:
            raise InputError("a StaticEmbedding has no place for max_seq_length, so the encoder is not saved")
        if not recipe.static and length != recipe.max_seq_length:
            path, settings = settings_with_length(recipe.files.folder, length)
            documents[path.relative_to(model.source).as_posix()] = settings
    return documents


def _kept(model: SavedModel, recipe: Recipe, convention: Convention) -> dict[str, Any]:
    """Of a folder that sentence-transformers would pool in another way: it stays plain, for its authors' code too."""
    changes = dict(_changed_options(model))
    length = model.settings.max_seq_length
    changes |= {} if length in (None, model.inside.extend_to) else {"max_seq_length": length}
    chosen = {"pooling": model.choices.pooling, "include_prompt": model.choices.include_prompt}
    changes |= {name: value for name, value in chosen.items() if value is not None}
    if changes:
        raise InputError(
            f"{model.source} is pooled as by its authors' code, whose files have no place for what was set: "
            f"{', '.join(changes)}"
        )
    named = {} if convention.base is None else {"_name_or_path": convention.base}
    return {"config.json": {**read_json(recipe.files.config), **named}} if named else {}


def _modules(model: SavedModel) -> dict[str, Any]:
    """The files that make a plain folder one of sentence-transformers, in the schema that every version reads."""
    kinds = (("Transformer", ""), ("Pooling", "1_Pooling"))
    recipe = model.recipes.main
    modes = pooling_fields(recipe.pooling, include_prompt=recipe.include_prompt)
    return {
        MODULES_FILE: [
            {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for index, (kind, path) in enumerate(kinds)
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": model.width, **modes},
        SETTINGS_FILES[0]: {"max_seq_length": model.lengths[0], "do_lower_case": False},
    }


def _changed_modules(model: SavedModel) -> Iterator[tuple[str, Any]]:
    """The files of modules that are to say what was chosen, by their place."""
    choices, modules = model.choices, modules_of(model.source)
    if choices.pooling is not None or choices.include_prompt is not None:
        for folder in dict.fromkeys(entry.folder for entry in modules if entry.kind == "Pooling"):
            pooling = choices.pooled(read_pooling(folder))
            config = {name: value for name, value in read_json(folder / "config.json").items() if name not in POOLING}
            fields = pooling_fields(pooling.modes, include_prompt=pooling.include_prompt)
            yield (folder / "config.json").relative_to(model.source).as_posix(), {**config, **fields}
    changed = {entry: new for entry, new in zip(modules, choices.chain(modules), strict=True) if entry != new}
    if any(entry.file != model.source / MODULES_FILE for entry in changed):
        raise InputError("an encoder with a choice of dense in a Router is not saved")
    if changed:
        listed = zip(*(read(model.source / MODULES_FILE) for read in (read_json_list, read_entries)), strict=True)
        paths = {entry: new.folder.relative_to(model.source).as_posix() for entry, new in changed.items()}
        yield MODULES_FILE, [{**value, "path": paths.get(entry, value["path"])} for value, entry in listed]


def _changed_options(model: SavedModel) -> dict[str, Any]:
    recipe, settings = model.recipes.main, model.settings
    before = {
        "prompts": {**dict.fromkeys(IMPLIED_PROMPTS, ""), **dict(recipe.prompts)},
        "default_prompt_name": recipe.default_prompt_name,
        "similarity_fn_name": recipe.similarity_fn_name or "cosine",
        "truncate_dim": recipe.truncate_dim,
    }
    now = {
        "prompts": dict(settings.prompts),
        "default_prompt_name": settings.default_prompt_name,
        "similarity_fn_name": settings.similarity_fn_name,
        "truncate_dim": settings.truncate_dim,
    }
    return {name: value for name, value in now.items() if value != before[name]}
