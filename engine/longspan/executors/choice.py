"""Which executor runs where."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from ..batch import PackedBatch
from ..checkpoint.tensor_view import TensorView
from ..checkpoint.tensors import Tensors
from ..checks import is_count
from ..errors import InputError
from ..program.program import Program
from ..weights import FORMATS, WEIGHTS
from .protocol import Executor

BACKENDS = ("reference", "transformers")

Samples = Callable[[], PackedBatch]
"""Texts to look at a model with, made when they are asked for."""

MakeExecutor = Callable[[Program, Mapping[str, TensorView], Samples, int], Executor]
"""From a body, its tensors, samples, and the tokens of the longest text to expect."""


def choose_executor(
    device: str | None, weights: str, backend: str | None, threads: int | None, memory: int | None = None
) -> tuple[str, MakeExecutor]:
    """The device's name, and a function that makes its executor. Torch is imported only if it will run.

    Raises:
        InputError: an option is unknown, or the device is not to be had.
    """
    if weights not in WEIGHTS:
        raise InputError(f"weights is {weights!r}, expected {', '.join(map(repr, WEIGHTS[:-1]))} or {WEIGHTS[-1]!r}")
    if backend not in (None, *BACKENDS):
        raise InputError(f"backend is {backend!r}, expected None or {' or '.join(map(repr, BACKENDS))}")
    most = max(64, 4 * (os.cpu_count() or 1))
    if threads is not None and not (is_count(threads, 1) and threads <= most):
        raise InputError(f"threads is {threads!r}, expected an integer from 1 to {most}")
    name = _best_device() if device is None else str(device)
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise InputError(f"device is {name!r}, expected 'cpu', 'cuda' or 'cuda:N'")
    if name == "cpu" and backend is None:
        return name, _cpu(threads, weights, memory)
    if memory is not None:
        raise InputError("memory= is for the CPU, without a backend: elsewhere nothing keeps to it")
    if weights not in ("auto", "float32"):
        raise InputError(f"weights={weights!r} runs on the CPU, without a backend")
    return name, _foreign(name) if backend == "transformers" else _reference(name)


def check_device(device: object, own: str) -> None:
    """Raise an InputError if a call asks for another device than its encoder's."""
    if device is not None and str(device) != own:
        raise InputError(f"device is {device!r}, but this encoder is on {own!r}; make another one for it")


def _cpu(threads: int | None, weights: str, memory: int | None) -> MakeExecutor:
    from .cpu import CpuExecutor

    wanted = next((known for known in FORMATS if known == weights), None)

    def make(body: Program, tensors: Mapping[str, TensorView], samples: Samples, longest: int) -> Executor:
        options: dict[str, Any] = {"threads": threads, "weights": wanted, "memory": memory}
        return CpuExecutor(body, tensors, samples=samples, longest=longest, **options)

    return make


def _reference(device: str) -> MakeExecutor:
    _check_torch(device)
    from .reference import ReferenceExecutor

    return lambda body, tensors, samples, longest: ReferenceExecutor(body, tensors, device=device)


def _foreign(device: str) -> MakeExecutor:
    _check_torch(device)
    if find_spec("transformers") is None:
        raise InputError("backend='transformers' needs transformers: pip install transformers")
    from .foreign import ForeignExecutor

    def make(body: Program, tensors: Mapping[str, TensorView], samples: Samples, longest: int) -> Executor:
        assert isinstance(tensors, Tensors)
        return ForeignExecutor(body, tensors.source, device=device)

    return make


def _check_torch(device: str) -> None:
    if find_spec("torch") is None:
        raise InputError(f"device {device!r} needs torch: pip install 'longspan[cuda]'")
    import torch

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device is {device!r}, but torch finds no GPU")


def _best_device() -> str:
    """ "cuda" where torch finds a GPU. Torch is asked, and so imported, only where the driver reports one."""
    if find_spec("torch") is None or not _gpus():
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _gpus() -> int:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value
