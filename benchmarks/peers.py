"""Longspan and its peers behind one small protocol. A peer whose package is missing is reported as skipped."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .machine import cores

Setting = Mapping[str, int]


class UnavailableError(RuntimeError):
    """This peer cannot run here; the message says why."""


@dataclass(frozen=True)
class Source:
    """What every implementation is made from."""

    model: Path  # a folder with config.json, tokenizer.json and model.safetensors
    max_length: int  # texts are cut at this many tokens
    exports: Path  # where the files that peers need instead of the folder are kept


class Implementation(Protocol):
    """One way to turn texts into vectors."""

    name: str
    precision: str
    settings: Sequence[Setting]  # what to try; the runner keeps the fastest
    obeys_tier: bool  # whether it keeps to the tier of instructions that the environment asks for

    def use(self, setting: Setting) -> None:
        """Chooses one of `settings`."""

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        """Vectors [n, d] in input order; tokenising included."""


class Longspan:
    """This library, on all cores, with its own defaults."""

    settings: Sequence[Setting] = ({},)
    obeys_tier = True

    def __init__(self, name: str, precision: str, source: Source) -> None:
        self.name, self.precision = name, precision
        longspan = importlib.import_module("longspan")
        try:
            self._encoder: Any = longspan.Encoder(
                str(source.model), device="cpu", long_text="truncate", weights=precision
            )
        except longspan.InputError as error:
            raise UnavailableError(str(error)) from error
        self._encoder.max_seq_length = source.max_length

    def use(self, setting: Setting) -> None:
        """Nothing to choose."""

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        return np.asarray(self._encoder.encode(texts, show_progress_bar=False), dtype=np.float32)


class SentenceTransformers:
    """sentence-transformers on torch, which sorts by length itself; the batch size is chosen by trial."""

    settings: Sequence[Setting] = tuple({"batch": size} for size in (8, 16, 32))
    obeys_tier = True

    def __init__(self, name: str, precision: str, source: Source) -> None:
        self.name, self.precision = name, precision
        torch = importlib.import_module("torch")
        torch.set_num_threads(cores())
        self._model: Any = importlib.import_module("sentence_transformers").SentenceTransformer(
            str(source.model), device="cpu", model_kwargs={"dtype": getattr(torch, precision)}
        )
        self._model.max_seq_length = source.max_length
        self._batch = 32

    def use(self, setting: Setting) -> None:
        self._batch = setting["batch"]

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        return np.asarray(
            self._model.encode(texts, batch_size=self._batch, show_progress_bar=False, convert_to_tensor=True).float()
        )


def _openvino(name: str, precision: str, source: Source) -> Implementation:
    from .peer_openvino import OpenVino

    return OpenVino(name, precision, source)


def _onnxruntime(name: str, precision: str, source: Source) -> Implementation:
    from .peer_onnxruntime import OnnxRuntime

    return OnnxRuntime(name, precision, source)


def _llama_cpp(name: str, precision: str, source: Source) -> Implementation:
    from .peer_llama_cpp import LlamaCpp

    return LlamaCpp(name, precision, source)


Factory = Callable[[str, str, Source], Implementation]

# Name on the command line -> how it is made, and in which precision it calculates.
PEERS: dict[str, tuple[Factory, str]] = {
    "longspan": (Longspan, "float32"),
    "longspan-bf16": (Longspan, "bfloat16"),
    "longspan-int8": (Longspan, "int8"),
    "sentence-transformers": (SentenceTransformers, "float32"),
    "sentence-transformers-bf16": (SentenceTransformers, "bfloat16"),
    "openvino": (_openvino, "float32"),
    "openvino-bf16": (_openvino, "bfloat16"),
    "openvino-int8": (_openvino, "int8"),
    "onnxruntime": (_onnxruntime, "float32"),
    "onnxruntime-int8": (_onnxruntime, "int8"),
    "llama.cpp": (_llama_cpp, "float32"),
    "llama.cpp-q8": (_llama_cpp, "int8"),
}


def make(name: str, source: Source) -> Implementation:
    """Loads one implementation; `UnavailableError` says which package is missing, or what the processor lacks."""
    factory, precision = PEERS[name]
    try:
        return factory(name, precision, source)
    except ImportError as error:
        raise UnavailableError(str(error)) from error


def own(name: str) -> bool:
    """Whether this is Longspan, and not one of the peers that it is measured beside."""
    return name.startswith("longspan")
