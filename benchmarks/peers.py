"""Longspan and its peers behind one small protocol. A peer whose package is missing is reported as skipped."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .machine import cores

Setting = Mapping[str, int]


class UnavailableError(RuntimeError):
    """This peer cannot run here; the message says why."""


class Implementation(Protocol):
    """One way to turn texts into vectors."""

    name: str
    precision: str
    settings: Sequence[Setting]  # what to try; the runner keeps the fastest

    def use(self, setting: Setting) -> None:
        """Chooses one of `settings`."""

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        """Vectors [n, d] in input order; tokenising included."""


class Longspan:
    """This library, on all cores, with its own defaults."""

    settings: Sequence[Setting] = ({},)

    def __init__(self, name: str, model: Path, max_length: int, precision: str) -> None:
        self.name, self.precision = name, precision
        encoder_class = importlib.import_module("longspan").Encoder
        self._encoder: Any = encoder_class(str(model), device="cpu", long_text="truncate", weights=precision)
        self._encoder.max_seq_length = max_length

    def use(self, setting: Setting) -> None:
        """Nothing to choose."""

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        return np.asarray(self._encoder.encode(texts, show_progress_bar=False), dtype=np.float32)


class SentenceTransformers:
    """sentence-transformers on torch, which sorts by length itself; the batch size is chosen by trial."""

    settings: Sequence[Setting] = tuple({"batch": size} for size in (8, 16, 32))

    def __init__(self, name: str, model: Path, max_length: int, precision: str) -> None:
        self.name, self.precision = name, precision
        torch = importlib.import_module("torch")
        torch.set_num_threads(cores())
        dtype = getattr(torch, precision)
        self._model: Any = importlib.import_module("sentence_transformers").SentenceTransformer(
            str(model), device="cpu", model_kwargs={"dtype": dtype}
        )
        self._model.max_seq_length = max_length
        self._batch = 32

    def use(self, setting: Setting) -> None:
        self._batch = setting["batch"]

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        return np.asarray(
            self._model.encode(texts, batch_size=self._batch, show_progress_bar=False, convert_to_tensor=True).float()
        )


def _openvino(name: str, model: Path, max_length: int, precision: str) -> Implementation:
    from .peer_openvino import OpenVino

    return OpenVino(name, model, max_length, precision)


def _onnxruntime(name: str, model: Path, max_length: int, precision: str) -> Implementation:
    from .peer_onnxruntime import OnnxRuntime

    return OnnxRuntime(name, model, max_length, precision)


Factory = Callable[[str, Path, int, str], Implementation]

# Name on the command line -> how it is made, and in which precision it calculates.
PEERS: dict[str, tuple[Factory, str]] = {
    "longspan": (Longspan, "float32"),
    "sentence-transformers": (SentenceTransformers, "float32"),
    "sentence-transformers-bf16": (SentenceTransformers, "bfloat16"),
    "openvino": (_openvino, "float32"),
    "openvino-bf16": (_openvino, "bfloat16"),
    "onnxruntime": (_onnxruntime, "float32"),
    "onnxruntime-int8": (_onnxruntime, "int8"),
}


def make(name: str, model: Path, max_length: int) -> Implementation:
    """Loads one implementation; `UnavailableError` says which package is missing, or what the processor lacks."""
    factory, precision = PEERS[name]
    try:
        return factory(name, model, max_length, precision)
    except ImportError as error:
        raise UnavailableError(str(error)) from error
