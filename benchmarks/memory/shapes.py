"""Model folders of random weights in the shape of real models, written as panels without any float checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longspan.checkpoint.extras import FILE as EXTRAS_FILE
from longspan.checkpoint.extras import Extras
from longspan.checkpoint.panels import FILE, PACKED_TYPES, panel_metadata
from longspan.checkpoint.tensor_view import TensorView
from longspan.checkpoint.writing import NewTensor, write_tensors
from longspan.models import build_body
from longspan.models.config import ModelConfig
from longspan.program.formats import in_format, matrices_of
from longspan.program.operands import Weight
from longspan.weights import Format

from ..tiny import TOKENIZER_FILES

Config = Mapping[str, Any]

QWEN3_06B: Config = {
    "model_type": "qwen3",
    "vocab_size": 151669,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000,
    "hidden_act": "silu",
}
"""Qwen3-Embedding-0.6B."""

LLAMA_7B: Config = {
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
}
"""Llama 2 7B, as embedding models were made of it."""


def bert_base(layers: int, positions: int) -> Config:
    """BERT-base with other numbers of layers and positions."""
    return {
        "model_type": "bert",
        "vocab_size": 30522,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": layers,
        "num_attention_heads": 12,
        "max_position_embeddings": positions,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
    }


def write(config: Config, weights: Format, tokenizer: Path, folder: Path) -> Path:
    """A model folder, unless it is there already; texts are tokenised as by the model folder `tokenizer`.

    Args:
        config: what `config.json` says.
        weights: the format of the panels, "int8" or "bfloat16".
        tokenizer: a model folder.
        folder: where to write.
    """
    if (folder / FILE).exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        if (tokenizer / name).exists():
            shutil.copy(tokenizer / name, folder / name)
    (folder / "config.json").write_text(json.dumps(dict(config)), encoding="utf-8")
    (folder / EXTRAS_FILE).write_text(json.dumps(Extras(weights=weights).as_json()), encoding="utf-8")
    body = in_format(build_body(ModelConfig(folder / "config.json", config)).pooled([]), weights)
    matrices = {weight: None for step in body.instructions for _, weight in matrices_of(step)}
    others = [weight for weight in body.weights if weight not in matrices]
    tensors = [tensor for weight in matrices for tensor in _panels(weight, weights)]
    tensors += [_plain(name, shape) for weight in others for name, shape in weight.stored.items()]
    nothing = np.zeros(0, np.float32)
    packed = {
        name: TensorView(name, "F32", shape, nothing, folder)
        for weight in matrices
        for name, shape in weight.stored.items()
    }
    partial = folder / f"{FILE}.partial"
    with partial.open("wb") as file:
        write_tensors(file, tensors, panel_metadata(weights, packed, int8_attention=False))
    return partial.rename(folder / FILE).parent


def _panels(weight: Weight, weights: Format) -> Iterator[NewTensor]:
    """A matrix whose panels of 16 columns are all the same, so that only one has to be in memory."""
    columns, k = weight.shape
    terms = 4 if weights == "int8" else 2
    count, lines = -(-columns // 16), -(-k // (16 * terms)) * 16
    random, shape = np.random.default_rng(k), (1, lines, 16, terms)
    if weights == "int8":
        words = random.integers(-127, 128, shape, np.int8)
    else:
        words = _bfloat16(random.normal(scale=1 / np.sqrt(k), size=shape))
    words.reshape(lines, 16, terms)[-(-k // terms) :] = 0
    yield NewTensor(f"{weight.key}.panels", PACKED_TYPES[weights], (count, *shape[1:]), (words,) * count)
    if weights == "int8":
        totals = np.tile(words[0].sum((0, 2), dtype=np.int64).astype(np.float32), count)
        scales = np.full(count * 16, 1 / (73 * np.sqrt(k)), np.float32)  # 73: how far such codes are from 0 on average
        yield NewTensor(f"{weight.key}.scales", "F32", scales.shape, (scales,))
        yield NewTensor(f"{weight.key}.totals", "F32", totals.shape, (totals,))


def _bfloat16(values: NDArray[np.float64]) -> NDArray[np.uint16]:
    """The upper halves of float32."""
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def _plain(name: str, shape: tuple[int, ...]) -> NewTensor:
    """A table in bfloat16, of which a row is repeated, or a vector of ones."""
    if len(shape) == 1:
        value = 0.0 if name.endswith("bias") else 1.0
        return NewTensor(name, "F32", shape, (np.full(shape, value, np.float32),))
    bits = _bfloat16(np.random.default_rng(shape[1]).normal(size=(64, shape[1])))
    whole, rest = divmod(shape[0], len(bits))
    return NewTensor(name, "BF16", shape, (bits,) * whole + (np.ascontiguousarray(bits[:rest]),))
