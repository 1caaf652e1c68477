"""The references of `longspan verify`: the same checkpoint in other libraries, on the CPU, in float32."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from ..batch import Float32
    from ..checkpoint.recipe import Recipe

Embed = Callable[[Path, Sequence[str], int], "Float32"]
"""A model folder, texts, and the tokens at which they are cut, to vectors [n, d]."""

_BATCH = 8


def load(name: str) -> Embed:
    """The reference by name.

    Raises:
        InputError: it is not installed.
    """
    package = name.replace("-", "_")
    try:
        importlib.import_module("torch")
        importlib.import_module(package)
    except ImportError as error:
        raise InputError(f"the reference {name} cannot be imported ({error}): pip install {name} torch") from None
    _silence()
    return {"sentence-transformers": sentence_transformers, "transformers": transformers}[name]


def _silence() -> None:
    logging: Any = importlib.import_module("transformers.utils.logging")
    logging.disable_progress_bar()
    logging.set_verbosity_error()


def sentence_transformers(folder: Path, texts: Sequence[str], max_seq_length: int) -> Float32:
    """All of sentence-transformers, its default prompt included."""
    library: Any = importlib.import_module("sentence_transformers")
    model = library.SentenceTransformer(str(folder), device="cpu").float()
    model.max_seq_length = max_seq_length
    vectors: Float32 = model.encode(list(texts), batch_size=_BATCH, show_progress_bar=False, convert_to_numpy=True)
    return vectors


def transformers(folder: Path, texts: Sequence[str], max_seq_length: int) -> Float32:
    """The forward pass of transformers, then the checkpoint's pooling and tail in torch; no prompt."""
    import torch

    from ..checkpoint.recipe import read_recipe

    library: Any = importlib.import_module("transformers")
    recipe = read_recipe(folder)
    tokenizer = library.AutoTokenizer.from_pretrained(str(recipe.files.folder))
    model = library.AutoModel.from_pretrained(str(recipe.files.folder)).float().eval()
    pooled = []
    for text in texts:  # one at a time: nothing is padded, so nothing needs a mask
        text = text.lower() if recipe.lower_case else text
        inputs = tokenizer(text, truncation=True, max_length=max_seq_length, return_tensors="pt")
        with torch.inference_mode():
            tokens = model(**inputs).last_hidden_state[0]
        pooled.append(torch.cat([_pooled(tokens, inputs.tokens(), mode) for mode in recipe.pooling]))
    return _tail(folder, recipe, torch.stack(pooled))


def _pooled(tokens: Any, words: list[str], mode: str) -> Any:
    """[n, D] to [D], special tokens included; `words` are the tokens themselves."""
    import torch

    count = len(tokens)
    mode, _, argument = mode.partition(":")
    weights = torch.arange(1, count + 1, dtype=tokens.dtype)[:, None]
    return {
        "cls": lambda: tokens[0],
        "mean": lambda: tokens.mean(0),
        "max": lambda: tokens.amax(0),
        "mean_sqrt_len_tokens": lambda: tokens.sum(0) / count**0.5,
        "weightedmean": lambda: (tokens * weights).sum(0) / weights.sum(),
        "lasttoken": lambda: tokens[-int(argument or 1) :].mean(0),
        "token": lambda: tokens[[word == argument for word in words]].mean(0),
    }[mode]()


def _tail(folder: Path, recipe: Recipe, pooled: Any) -> Float32:
    """The checkpoint's modules after the pooling, by the reference executor: each vector is one partial of one row."""
    import numpy as np

    from ..batch import Partials
    from ..executors.reference import execute, load_weights, without_tokens
    from ..pooling.tail import build_tail, ends_in_normalize, tail_tensors, tail_width

    count, width = len(pooled), pooled.shape[1] // len(recipe.pooling)
    dimension = recipe.truncate_dim or tail_width(recipe.pooling, width, recipe.tail)
    unit = ends_in_normalize(recipe.tail)
    program = build_tail(recipe.pooling, width, recipe.tail, dimension=dimension, unit=unit)
    starts = np.arange(count, dtype=np.int64)
    ones, zeros = np.ones(count, np.float32), np.zeros(count, np.float32)
    partials = Partials(starts, starts + 1, ones, zeros, np.arange(count + 1, dtype=np.int64))
    weights = load_weights(program, tail_tensors(folder, recipe.tail))
    parts = zip(program.inputs, pooled.split(width, dim=1), strict=True)
    inputs = {buffer.name: part.contiguous() for buffer, part in parts}
    buffers = execute(program, inputs, weights, without_tokens((partials,) * len(recipe.pooling)))
    vectors: Float32 = buffers[program.outputs[0].name].numpy()
    return vectors
