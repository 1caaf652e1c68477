"""The modules that a folder names: in modules.json, or for each route of a Router in its router_config.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from ..errors import CheckpointError
from .adaptations import file_adaptations
from .config import Fields, json_kind, read_json_list

NAMESPACE = "sentence_transformers."
ADAPTED = "custom_st.Transformer"
"""Jina v3's and v5's own Transformer: it adds the adaptation for the task of a call, if the config declares some."""
QUANTIZER = "st_quantize.FlexibleQuantizer"
"""pplx-embed's own last module, which has no files."""
FIRST = ("Transformer", "StaticEmbedding")
ROUTERS = ("Router", "Asym")
TAIL = ("Dense", "LayerNorm", "Normalize", "FlexibleQuantizer")
SUPPORTED = (*FIRST, ROUTERS[0], "WeightedLayerPooling", "Pooling", *TAIL, "Dropout")


@dataclass(frozen=True, slots=True)
class Entry:
    """A module by its class and its folder, which may not exist.

    Attributes:
        file: names it.
        type: its class with the package.
        folder: where it lies.
    """

    file: Path
    type: str
    folder: Path

    @property
    def kind(self) -> str:
        """The class's name."""
        return self.type.rpartition(".")[2]


def read_entries(path: Path) -> tuple[Entry, ...]:
    """The entries of a modules.json, in order.

    Raises:
        CheckpointError: the file is damaged, leads out of its folder, or names code of its own.
    """
    entries = []
    names: set[str] = set()
    for place, value in enumerate(read_json_list(path)):
        if not isinstance(value, dict):
            raise CheckpointError(f"{path}: entry {place} must be an object, not {json_kind(value)}.")
        fields = Fields(path, value, f"{place}.")
        name, module_path = fields.optional_text("name"), fields.optional_text("path")
        if name is not None and name in names:  # sentence-transformers would drop the first of the two
            raise fields.wrong("name", f"is '{name}', which an earlier entry has too")
        names.update([] if name is None else [name])
        entries.append(read_entry(fields, "type", "path", module_path))
    return tuple(entries)


def read_entry(fields: Fields, type_name: str, path_name: str, path: str | None) -> Entry:
    """The entry whose class is named by the field `type_name`, and whose folder, said by `path_name`, is `path`.

    Raises:
        CheckpointError: one of them is missing, the path leads out of the folder, or the class is code of its own.
    """
    module_type = fields.optional_text(type_name)
    if module_type is None or path is None:
        raise fields.wrong(type_name if module_type is None else path_name, "is missing")
    relative = PureWindowsPath(path)
    if relative.anchor or ".." in relative.parts or "\0" in path:
        raise fields.wrong(path_name, f"is {path!r}; a path inside the folder is needed")
    folder = fields.path.parent / path
    adapted = module_type == ADAPTED and file_adaptations(folder / "config.json") is not None
    if not adapted and module_type != QUANTIZER and not module_type.startswith(NAMESPACE):
        raise fields.wrong(type_name, f"is '{module_type}', code of its own, which is not run; {supported()}")
    return Entry(fields.path, module_type, folder)


def supported() -> str:
    """What can be named, for messages."""
    return f"supported are {', '.join(SUPPORTED)}"
