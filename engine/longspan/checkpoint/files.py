"""Where the files of a transformer lie: in its folder, or where that holds an adapter alone, in its base's too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError, CheckpointNotFoundError
from ..text.conversion import SOURCES
from .adapter import CONFIG as ADAPTER
from .config import Fields
from .tensors import holds_weights

Find = Callable[[str, str | None], Path]
"""From a model's name and revision to its folder; raises a CheckpointError where there is none."""

BASE = "base_model_name_or_path"


@dataclass(frozen=True, slots=True)
class TransformerFiles:
    """Where what is.

    Attributes:
        folder: the transformer's own, with its settings.
        config: its config.json.
        weights: the folder of its weights.
        tokenizer: the folder of its tokenizer.
        adapter: the folder of the LoRA that belongs to it; None for the weights alone.
    """

    folder: Path
    config: Path
    weights: Path
    tokenizer: Path
    adapter: Path | None = None

    @classmethod
    def inside(cls, folder: Path, adapter: Path | None = None) -> TransformerFiles:
        """All in one folder."""
        return cls(folder, folder / "config.json", folder, folder, adapter)


def find_files(folder: Path, find: Find) -> TransformerFiles:
    """The files of a transformer.

    A folder with an adapter beside weights has it added to these, as in transformers. Without weights it is for the
    model that it names.

    Raises:
        CheckpointError: the adapter's base is not to be had, or is none; the message names file and field.
    """
    if not (folder / ADAPTER).exists():
        return TransformerFiles.inside(folder)
    if holds_weights(folder):
        return TransformerFiles.inside(folder, adapter=folder)
    base = _base(Fields.read(folder / ADAPTER), find)
    config = next(place / "config.json" for place in (folder, base) if (place / "config.json").exists())
    tokenizer = folder if any((folder / name).exists() for name in ("tokenizer.json", *SOURCES)) else base
    return TransformerFiles(folder, config, base, tokenizer, folder)


def _base(fields: Fields, find: Find) -> Path:
    name = fields.text(BASE)
    try:
        base = find(name, fields.optional_text("revision"))
    except CheckpointError as error:
        raise CheckpointNotFoundError(
            f"{fields.path}: field '{BASE}' names the model that the adapter is for, which is not to be had: {error}"
        ) from error
    if not (base / "config.json").exists() or not holds_weights(base):
        reason = f"is '{name}', but {base} holds no config.json with weights beside it; merge the adapter in PEFT"
        raise fields.wrong(BASE, reason)
    return base
