"""The peer OpenVINO: the model converted from torch, with dynamic shapes, in float32 or bfloat16."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .batches import INPUTS, Batcher, pooled_module
from .machine import cores
from .peers import Setting, UnavailableError

_PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}


class OpenVino:
    """Many texts go through parallel streams, one text through a model compiled for latency, as its guide advises."""

    def __init__(self, name: str, model: Path, max_length: int, precision: str) -> None:
        self.name, self.precision = name, precision
        self._openvino: Any = importlib.import_module("openvino")
        self._core: Any = self._openvino.Core()
        if precision == "bfloat16" and "BF16" not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise UnavailableError("this processor has no bfloat16 instructions that OpenVINO uses")
        module, example = pooled_module(model)
        converted = self._openvino.convert_model(module, example_input=dict(zip(INPUTS, example, strict=True)))
        converted.reshape({name: self._openvino.PartialShape([-1, -1]) for name in INPUTS})
        self._converted: Any = converted
        self._batcher = Batcher(model, max_length)
        self._single: Any = self._compile({"PERFORMANCE_HINT": "LATENCY"}).create_infer_request()
        streams = sorted({1, cores()})
        self.settings: Sequence[Setting] = tuple({"streams": s, "batch": b} for s in streams for b in (8, 16, 32))
        self._streams = 0
        self.use(self.settings[0])

    def _compile(self, extra: dict[str, str]) -> Any:
        common = {
            "INFERENCE_PRECISION_HINT": _PRECISIONS[self.precision],
            "INFERENCE_NUM_THREADS": str(cores()),
        }
        return self._core.compile_model(self._converted, "CPU", common | extra)

    def use(self, setting: Setting) -> None:
        self._batch = setting["batch"]
        if setting["streams"] != self._streams:  # one compiled model at a time: each keeps gigabytes of shapes
            self._streams = setting["streams"]
            compiled = self._compile({"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": str(self._streams)})
            self._queue: Any = self._openvino.AsyncInferQueue(compiled, self._streams)

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        if len(texts) == 1:
            inputs = next(self._batcher.batches(texts, 1)).inputs
            return np.array(next(iter(self._single.infer(inputs).values())), dtype=np.float32)
        parts: list[tuple[list[int], NDArray[np.float32]]] = []
        self._queue.set_callback(
            lambda request, places: parts.append((places, request.get_output_tensor(0).data.copy()))
        )
        for places, inputs in self._batcher.batches(texts, self._batch):
            self._queue.start_async(inputs, places)
        self._queue.wait_all()
        vectors = np.empty((len(texts), parts[0][1].shape[1]), dtype=np.float32)
        for places, rows in parts:
            vectors[places] = rows
        return vectors
