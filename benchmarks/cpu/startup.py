"""The workload `startup`: from the start of a process to the first vector of a saved model, and its peak of memory."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .. import exports, peer_onnxruntime, peer_openvino, peers, runner
from ..peers import Source
from .report import Task
from .setup import Setup
from .short import QUERY, REFERENCE

SCRIPT = Path(__file__).with_name("first_vector.py")


@dataclass(frozen=True)
class Start:
    """One way to come to a vector."""

    name: str
    precision: str
    kind: str  # a function of the script
    folder: Path
    file: Path | None = None  # beside the folder, where the runtime needs it
    obeys_tier: bool = True

    def run(self) -> tuple[float, NDArray[np.float32], int]:
        """Seconds from spawning the process to its line with the vector; the vector; the peak of memory in bytes."""
        # Isolated: the files beside the script are no modules of it.
        command = [
            sys.executable,
            "-I",
            str(SCRIPT),
            self.kind,
            str(self.folder),
            str(self.file),
            self.precision,
            QUERY,
        ]
        with tempfile.TemporaryFile("w+") as errors:
            start = time.perf_counter()
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
                assert process.stdout is not None
                line = process.stdout.readline()
                seconds = time.perf_counter() - start
                peak = process.stdout.read()
            errors.seek(0)
            problems = errors.read()
        if process.returncode:
            raise RuntimeError(f"{self.name}: {problems.strip()}")
        return seconds, np.array([json.loads(line)], dtype=np.float32), int(peak)


def run(setup: Setup, names: Sequence[str], max_length: int) -> Task:
    """Each in a fresh process, alternately; what a first, unmeasured round reads from disk is in memory afterwards."""
    pairs = _checked(setup, names, Source(setup.model, max_length, setup.exports))
    for number in range(setup.rounds if pairs else 0):
        shift = number % len(pairs)
        for start, result in pairs[shift:] + pairs[:shift]:
            seconds, _, peak = start.run()
            result.seconds.append(seconds)
            result.peak_memory_bytes = max(peak, result.peak_memory_bytes or 0)
        setup.report(f"round {number + 1} of {setup.rounds}")
    return setup.task("from the start of a process to the first vector", [result for _, result in pairs])


def _checked(setup: Setup, names: Sequence[str], source: Source) -> list[tuple[Start, runner.Measurement]]:
    """Those that start, and whose vector is close to the reference's where that takes part."""
    reference: NDArray[np.float32] | None = None
    pairs: list[tuple[Start, runner.Measurement]] = []
    for name in sorted(names, key=lambda name: name != REFERENCE):
        start = setup.try_to_make(name, lambda name: _start(name, source))
        if start is None:
            continue
        _, vector, peak = start.run()
        reference = vector if name == REFERENCE else reference
        result = runner.Measurement(name, start.precision, peak_memory_bytes=peak)
        if wrong := runner.check(result, vector, reference):
            setup.report(f"left out {name}: {wrong}")
            continue
        pairs.append((start, result))
        setup.report(f"checked {name}")
    if reference is None:
        setup.report_unchecked(f"{REFERENCE} does not take part")
    return pairs


def _start(name: str, source: Source) -> Start:
    """Makes what the process will load; `UnavailableError` says why that is not possible."""
    precision = peers.PEERS[name][1]
    if name not in STARTS:
        raise peers.UnavailableError("has no way to start in this workload")
    try:
        return STARTS[name](name, precision, source)
    except ImportError as error:
        raise peers.UnavailableError(str(error)) from error


def _longspan(name: str, precision: str, source: Source) -> Start:
    folder = source.exports / f"longspan-{precision}"
    try:
        exports.once(folder, partial(_save, weights=precision), source.model)
    except importlib.import_module("longspan").InputError as error:
        raise peers.UnavailableError(str(error)) from error
    return Start(name, precision, "longspan", folder)


def _save(model: Path, folder: Path, weights: str) -> None:
    importlib.import_module("longspan").Encoder(str(model), device="cpu", weights=weights).save(folder)


def _sentence_transformers(name: str, precision: str, source: Source) -> Start:
    importlib.import_module("sentence_transformers")
    return Start(name, precision, "sentence_transformers", source.model)


def _onnxruntime(name: str, precision: str, source: Source) -> Start:
    file = peer_onnxruntime.exported(source, precision)
    return Start(name, precision, "onnxruntime", source.model, file, obeys_tier=False)


def _openvino(name: str, precision: str, source: Source) -> Start:
    file = peer_openvino.exported(source, precision, "eager")
    return Start(name, precision, "openvino", source.model, file, peer_openvino.obeys_tier())


STARTS: dict[str, Callable[[str, str, Source], Start]] = {
    "longspan": _longspan,
    "longspan-bf16": _longspan,
    "longspan-int8": _longspan,
    "sentence-transformers": _sentence_transformers,
    "onnxruntime": _onnxruntime,
    "onnxruntime-int8": _onnxruntime,
    "openvino": _openvino,
    "openvino-bf16": _openvino,
    "openvino-int8": _openvino,
}
