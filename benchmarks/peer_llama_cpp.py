"""The peer llama.cpp through its Python package, from a GGUF file that the user brings."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .machine import cores
from .peers import Setting, Source, UnavailableError


class LlamaCpp:
    """Texts in one call, which the package splits into batches of so many tokens; the file says how to pool.

    The file is `llama-float32.gguf` or `llama-int8.gguf` (q8_0) in the folder of exports: nothing that can be installed
    beside Longspan converts a model, llama.cpp's own script does (`convert_hf_to_gguf.py MODEL --outtype f32|q8_0`).
    """

    settings: Sequence[Setting] = tuple({"batch_tokens": tokens} for tokens in (512, 2048))
    obeys_tier = False  # what it was compiled for

    def __init__(self, name: str, precision: str, source: Source) -> None:
        self.name, self.precision = name, precision
        self._package: Any = importlib.import_module("llama_cpp")
        self._file = source.exports / f"llama-{precision}.gguf"
        if not self._file.is_file():
            raise UnavailableError(f"there is no {self._file.name} in the folder of exports (--exports)")
        self._max_length = source.max_length
        self.use(self.settings[0])

    def use(self, setting: Setting) -> None:
        tokens = max(setting["batch_tokens"], self._max_length)
        self._model: Any = self._package.Llama(
            model_path=str(self._file),
            embedding=True,
            n_ctx=tokens,
            n_batch=tokens,
            n_ubatch=tokens,
            n_threads=cores(),
            n_threads_batch=cores(),
            verbose=False,
        )

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        return np.asarray(self._model.embed(texts, normalize=True, truncate=True), dtype=np.float32)
