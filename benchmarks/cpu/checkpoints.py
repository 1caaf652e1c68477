"""Checkpoints with random weights in the shape of real ones: what a long text costs does not depend on the weights."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from .. import exports
from ..tiny import TOKENIZER_FILES

Maker = Callable[[int], Any]  # from the most positions to a transformers model


def bert(positions: int) -> Any:
    """BERT-base with 4 layers: 768 wide, 12 heads."""
    transformers = importlib.import_module("transformers")
    config = transformers.BertConfig(num_hidden_layers=4, max_position_embeddings=positions)
    return transformers.BertModel(config, add_pooling_layer=False)


def modernbert(positions: int) -> Any:
    """ModernBERT-base: 22 layers, every third of them seeing the whole text."""
    transformers = importlib.import_module("transformers")
    return transformers.ModernBertModel(transformers.ModernBertConfig(max_position_embeddings=positions))


def once(make: Maker, tokenizer: Path, positions: int, folder: Path) -> Path:
    """A model folder in `folder`, with the tokenizer of the model folder `tokenizer`, unless it is there already."""
    path = folder / f"{make.__name__}-{positions}"
    return exports.once(path, partial(_write, make=make, positions=positions), tokenizer)


def _write(tokenizer: Path, path: Path, make: Maker, positions: int) -> None:
    importlib.import_module("torch").manual_seed(0)
    make(positions).save_pretrained(path)
    for name in TOKENIZER_FILES:
        if (tokenizer / name).exists():
            shutil.copy(tokenizer / name, path / name)
