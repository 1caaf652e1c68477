"""The peer ONNX Runtime: exported from torch, attention fused by its own optimiser, float32 or dynamic int8."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .batches import INPUTS, Batch, Batcher, pooled_module
from .machine import cores
from .peers import Setting


class OnnxRuntime:
    """Either one batch at a time on all cores, or one batch per core: the runner finds which is faster."""

    def __init__(self, name: str, model: Path, max_length: int, precision: str) -> None:
        self.name, self.precision = name, precision
        self._runtime: Any = importlib.import_module("onnxruntime")
        self._batcher = Batcher(model, max_length)
        with tempfile.TemporaryDirectory(prefix="benchmark-onnx-") as folder, _quiet():
            self._graph = _export(model, Path(folder), precision).read_bytes()
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


def _export(model: Path, folder: Path, precision: str) -> Path:
    """The model as a fused ONNX graph in `folder`."""
    onnx = importlib.import_module("onnx")  # first: if it is missing, the slow part would be in vain
    torch = importlib.import_module("torch")
    module, example = pooled_module(model)
    plain, fused = folder / "plain.onnx", folder / "fused.onnx"
    axes = {name: {0: "batch", 1: "tokens"} for name in INPUTS} | {"vectors": {0: "batch"}}
    torch.onnx.export(
        module,
        example,
        str(plain),
        input_names=list(INPUTS),
        output_names=["vectors"],
        dynamic_axes=axes,
        opset_version=17,
        dynamo=False,  # the optimiser below knows the shapes that the older exporter writes
    )
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    optimized = importlib.import_module("onnxruntime.transformers.optimizer").optimize_model(
        str(plain),
        model_type="bert",
        num_heads=config["num_attention_heads"],
        hidden_size=config["hidden_size"],
        opt_level=0,
    )
    optimized.save_model_to_file(str(fused))
    if precision != "int8":
        return fused
    quantized = folder / "int8.onnx"
    quantization = importlib.import_module("onnxruntime.quantization")
    # Shape inference does not know the fused operators; what they put out is float32.
    types = {"DefaultTensorType": onnx.TensorProto.FLOAT}
    quantization.quantize_dynamic(str(fused), str(quantized), per_channel=True, extra_options=types)
    return quantized


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides the exporters' chatter, which has nothing to do with the measurement."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(before)
