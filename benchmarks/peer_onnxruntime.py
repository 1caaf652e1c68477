"""The peer ONNX Runtime: exported from torch, attention fused by its own optimiser, float32 or dynamic int8."""

from __future__ import annotations

import importlib
import json
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import exports
from .batches import Batch, Batcher, pooled_module
from .machine import cores
from .peers import Setting, Source


class OnnxRuntime:
    """Either one batch at a time on all cores, or one batch per core: the runner finds which is faster."""

    obeys_tier = False  # MLAS asks the processor

    def __init__(self, name: str, precision: str, source: Source) -> None:
        self.name, self.precision = name, precision
        self._runtime: Any = importlib.import_module("onnxruntime")
        self._batcher = Batcher(source.model, source.max_length)
        self._graph = exported(source, precision).read_bytes()
        self._sessions: dict[int, Any] = {}
        self.settings: Sequence[Setting] = tuple({"at_once": n, "batch": b} for n in (1, cores()) for b in (8, 16))
        self._at_once, self._batch = 1, 16

    def _session(self, threads: int) -> Any:
        if threads not in self._sessions:
            options = self._runtime.SessionOptions()
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
            self._sessions[threads] = self._runtime.InferenceSession(
                self._graph, options, providers=["CPUExecutionProvider"]
            )
        return self._sessions[threads]

    def use(self, setting: Setting) -> None:
        self._at_once, self._batch = setting["at_once"], setting["batch"]

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        at_once = self._at_once if len(texts) > 1 else 1
        session = self._session(max(1, cores() // at_once))

        def run(batch: Batch) -> tuple[list[int], NDArray[np.float32]]:
            return batch.places, session.run(None, batch.inputs)[0]

        batches = self._batcher.batches(texts, self._batch)
        if at_once == 1:
            parts = [run(batch) for batch in batches]
        else:
            with ThreadPoolExecutor(at_once) as pool:
                parts = list(pool.map(run, batches))
        vectors = np.empty((len(texts), parts[0][1].shape[1]), dtype=np.float32)
        for places, rows in parts:
            vectors[places] = rows
        return vectors


def exported(source: Source, precision: str) -> Path:
    """The graph's file, "float32" or "int8"."""
    importlib.import_module("onnx")  # first: if it is missing, starting a process is in vain
    fused = exports.once(source.exports / "onnxruntime-float32.onnx", _fused, source.model)
    if precision == "float32":
        return fused
    return exports.once(source.exports / "onnxruntime-int8.onnx", _quantized, source.model)


def _fused(model: Path, file: Path) -> None:
    """Writes the model as one graph in float32 whose attention is a single operator."""
    torch = importlib.import_module("torch")
    module, example = pooled_module(model, "eager")
    axes = {name: {0: "batch", 1: "tokens"} for name in example} | {"vectors": {0: "batch"}}
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="benchmark-onnx-") as folder:
        plain = str(Path(folder) / "plain.onnx")
        torch.onnx.export(
            module,
            tuple(example.values()),
            plain,
            input_names=list(example),
            output_names=["vectors"],
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,  # the optimiser below knows the shapes that the older exporter writes
        )
        optimized = importlib.import_module("onnxruntime.transformers.optimizer").optimize_model(
            plain,
            model_type="bert",
            num_heads=config["num_attention_heads"],
            hidden_size=config["hidden_size"],
            opt_level=0,
        )
    optimized.save_model_to_file(str(file))


def _quantized(model: Path, file: Path) -> None:
    """Writes the fused graph, which lies beside `file`, with dynamically quantised products."""
    quantization = importlib.import_module("onnxruntime.quantization")
    # Shape inference does not know the fused operators; what they put out is float32.
    types = {"DefaultTensorType": importlib.import_module("onnx").TensorProto.FLOAT}
    fused = file.with_name("onnxruntime-float32.onnx")
    quantization.quantize_dynamic(str(fused), str(file), per_channel=True, extra_options=types)
