"""The peer OpenVINO: the model converted from torch, with dynamic shapes, in float32, bfloat16 or NNCF's int8."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import exports, texts
from .batches import Batcher, pooled_module
from .machine import cores
from .peers import Setting, Source, UnavailableError

# What it no longer claims to be able to where it keeps to a tier; versions before 2026.4 do not.
BEYOND = {
    "AVX2": ("WINOGRAD", "BF16", "FP16"),
    "AVX512_CORE": ("BF16", "FP16"),
    "AVX512_CORE_VNNI": ("BF16", "FP16"),
    "AVX512_CORE_BF16": ("FP16",),
}
CALIBRATION_TEXTS, CALIBRATION_LENGTH = 200, 256


class OpenVino:
    """Many texts go through parallel streams, one text through a model compiled for latency, as its guide advises.

    Attention is tried as transformers writes it in two ways, "sdpa" and "eager": which is faster depends on lengths.
    """

    def __init__(self, name: str, precision: str, source: Source) -> None:
        self.name, self.precision = name, precision
        self._openvino: Any = importlib.import_module("openvino")
        self._core: Any = self._openvino.Core()
        self.obeys_tier = obeys_tier()
        has_bf16 = "BF16" in capabilities()
        if precision == "bfloat16" and not has_bf16:
            raise UnavailableError("this processor has no bfloat16 instructions that OpenVINO uses")
        # What int8 leaves in floating point runs in bfloat16 where the processor has it, as by OpenVINO's own default.
        self._hint = "f32" if precision == "float32" or not has_bf16 else "bf16"
        self._source = source
        exported(source, precision, "sdpa")  # here, as it says whether the model can be had at all
        self._batcher = Batcher(source.model, source.max_length)
        streams = sorted({1, cores()})
        self.settings: Sequence[Setting] = tuple(
            {"streams": s, "batch": b, "sdpa": a} for a in (1, 0) for s in streams for b in (8, 16, 32)
        )
        self._setting = self.settings[0]
        self._queue: Any = None
        self._single: Any = None

    def use(self, setting: Setting) -> None:
        """Compiled models are made when they are needed, one of each kind at a time: each keeps gigabytes of shapes."""
        if any(setting[name] != self._setting[name] for name in ("streams", "sdpa")):
            self._queue = self._single = None
        self._setting = setting

    def _compile(self, extra: dict[str, str]) -> Any:
        file = exported(self._source, self.precision, "sdpa" if self._setting["sdpa"] else "eager")
        common = {"INFERENCE_PRECISION_HINT": self._hint, "INFERENCE_NUM_THREADS": str(cores())}
        return self._core.compile_model(self._core.read_model(file), "CPU", common | extra)

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        return self._encode_one(texts) if len(texts) == 1 else self._encode_many(texts)

    def _encode_one(self, texts: list[str]) -> NDArray[np.float32]:
        if self._single is None:
            self._single = self._compile({"PERFORMANCE_HINT": "LATENCY"}).create_infer_request()
        inputs = next(self._batcher.batches(texts, 1)).inputs
        return np.array(next(iter(self._single.infer(inputs).values())), dtype=np.float32)

    def _encode_many(self, texts: list[str]) -> NDArray[np.float32]:
        if self._queue is None:
            streams = self._setting["streams"]
            compiled = self._compile({"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": str(streams)})
            self._queue = self._openvino.AsyncInferQueue(compiled, streams)
        parts: list[tuple[list[int], NDArray[np.float32]]] = []
        self._queue.set_callback(
            lambda request, places: parts.append((places, request.get_output_tensor(0).data.copy()))
        )
        for places, inputs in self._batcher.batches(texts, self._setting["batch"]):
            self._queue.start_async(inputs, places)
        self._queue.wait_all()
        vectors = np.empty((len(texts), parts[0][1].shape[1]), dtype=np.float32)
        for places, rows in parts:
            vectors[places] = rows
        return vectors


def capabilities() -> set[str]:
    """What OpenVINO says that this processor can."""
    return set(importlib.import_module("openvino").Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def obeys_tier() -> bool:
    """Whether it keeps to the tier that the environment asks for, by what it says that it can."""
    return capabilities().isdisjoint(BEYOND.get(os.environ.get("OV_CPU_MAX_ISA", ""), ()))


def exported(source: Source, precision: str, attention: str) -> Path:
    """The converted model; bfloat16 is made from the float32 file when it is compiled."""
    export, kind = (_int8, "int8") if precision == "int8" else (_float32, "float32")
    path = source.exports / f"openvino-{kind}-{attention}.xml"
    try:
        return exports.once(path, partial(export, attention=attention), source.model)
    except ImportError:
        raise
    except Exception as error:  # whatever the converter or NNCF made of this architecture
        raise UnavailableError(f"the model does not convert: {str(error).strip().splitlines()[0]}") from error


def _converted(model: Path, attention: str) -> Any:
    """The folder's model in OpenVINO's representation, with batch and length left open."""
    openvino = importlib.import_module("openvino")
    module, example = pooled_module(model, attention)
    converted = openvino.convert_model(module, example_input=example)
    converted.reshape({name: openvino.PartialShape([-1, -1]) for name in example})
    return converted


def _float32(model: Path, file: Path, attention: str) -> None:
    importlib.import_module("openvino").save_model(_converted(model, attention), file, compress_to_fp16=False)


def _int8(model: Path, file: Path, attention: str) -> None:
    """NNCF's quantisation after training, calibrated on real texts one by one."""
    nncf = importlib.import_module("nncf")
    sample = Batcher(model, CALIBRATION_LENGTH).batches(texts.paragraphs(CALIBRATION_TEXTS), 1)
    quantized = nncf.quantize(
        _converted(model, attention),
        nncf.Dataset([batch.inputs for batch in sample]),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=CALIBRATION_TEXTS,
    )
    importlib.import_module("openvino").save_model(quantized, file, compress_to_fp16=False)
