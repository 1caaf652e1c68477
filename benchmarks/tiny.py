"""A tiny random BERT with a real model's tokenizer: its arithmetic costs next to nothing, which leaves the rest."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, INNER, LAYERS = 32, 64, 1
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def tiny_checkpoint(model: Path, folder: Path) -> Path:
    """Writes a BERT of one layer and 32 components with the tokenizer and the positions of `model`, a BERT too."""
    config: dict[str, Any] = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config |= {
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 1,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        if (model / name).exists():
            shutil.copy(model / name, folder / name)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    random = np.random.default_rng(0)
    tensors = {name: random.normal(0, 0.1, shape).astype(np.float32) for name, shape in bert_shapes(config).items()}
    importlib.import_module("safetensors.numpy").save_file(tensors, folder / "model.safetensors")
    return folder


def bert_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The tensors of a BERT with such a config.json, by name."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    tables = {
        "word_embeddings": config["vocab_size"],
        "position_embeddings": config["max_position_embeddings"],
        "token_type_embeddings": config["type_vocab_size"],
    }
    shapes: dict[str, tuple[int, ...]] = {f"embeddings.{name}.weight": (rows, width) for name, rows in tables.items()}
    linears = {f"attention.self.{name}": (width, width) for name in ("query", "key", "value")}
    linears |= {"attention.output.dense": (width, width)}
    linears |= {"intermediate.dense": (inner, width), "output.dense": (width, inner)}
    norms = ["embeddings.LayerNorm"]
    for layer in range(config["num_hidden_layers"]):
        prefix = f"encoder.layer.{layer}."
        for name, shape in linears.items():
            shapes |= {f"{prefix}{name}.weight": shape, f"{prefix}{name}.bias": shape[:1]}
        norms += [f"{prefix}attention.output.LayerNorm", f"{prefix}output.LayerNorm"]
    return shapes | {f"{name}.{part}": (width,) for name in norms for part in ("weight", "bias")}
