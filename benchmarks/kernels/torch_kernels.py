"""torch's side: its own kernels for the same work, in a process that is held to the same instructions.

They are MKL's, oneDNN's and, for int8, FBGEMM's, which knows no AMX. Rows have the dtype of the weights, with int8
float32; Longspan's are float32 here, whatever the weights.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from ..cpu.isa import TIERS
from .work import HEAD_SIZE, HEADS, Work

KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 32), "MALLOC_TRIM_THRESHOLD_": str(1 << 32)}
"""So that results that torch allocates are not new to the system each time."""


class TorchKernels:
    """One thread of torch. `why` says why there is none, or none any more."""

    def __init__(self, tier: str) -> None:
        self._process: SpawnProcess | None = None
        self.why = "" if tier in TIERS else f"torch cannot be held to {tier}"
        if self.why:
            return
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        with _environment({**TIERS[tier], **KEEP_MEMORY}):
            self._process.start()
        theirs.close()
        self._receive()

    def seconds(self, work: Work, repeats: int) -> float | None:
        """Of so many runs, or None where torch has no kernel for it."""
        if self.why:
            return None
        with contextlib.suppress(BrokenPipeError):  # `_receive` says what became of the process
            self._pipe.send((work, repeats))
        return self._receive()

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._pipe.close()
            self._process.join()

    def _receive(self) -> float | None:
        assert self._process is not None
        try:
            answer = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            answer = f"its process ended with code {self._process.exitcode}"
        if isinstance(answer, str):
            self.why, answer = answer, None
        return None if answer is None else float(answer)


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """These for processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(pipe: Connection) -> None:
    """Answers work with seconds until the other side closes the pipe; first with None. Words say what went wrong."""
    try:
        import torch

        torch.set_num_threads(1)
        torch.set_grad_enabled(False)
        pipe.send(None)
        while True:
            work, repeats = pipe.recv()
            run = _kernel(work)
            pipe.send(None if run is None else _timed(run, repeats))
    except EOFError:
        return
    except Exception as error:  # whatever torch raises ends its column, not the table
        pipe.send(f"{type(error).__name__}: {error}")


def _timed(run: Callable[[], Any], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return time.perf_counter() - start


@functools.lru_cache(maxsize=1)
def _kernel(work: Work) -> Callable[[], Any] | None:
    """The work over the same random numbers each time, run once already."""
    run = _attention(work) if work.instruction == "attention" else _linear(work)
    if run is not None:
        run()
    return run


def _attention(work: Work) -> Callable[[], Any] | None:
    import torch

    if work.int8_attention:  # torch has none over bytes
        return None
    q, k, v = torch.randn(3, 1, HEADS, work.tokens, HEAD_SIZE, dtype=getattr(torch, work.precision))
    return functools.partial(torch.nn.functional.scaled_dot_product_attention, q, k, v)


def _linear(work: Work) -> Callable[[], Any]:
    import torch

    x = torch.randn(work.tokens, work.width)
    linear: Any = torch.nn.Linear(work.width, work.columns, bias=False)
    if work.weights == "int8":
        quantize: Any = torch.ao.quantization.quantize_dynamic
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is to move to another package
            linear = quantize(torch.nn.Sequential(linear), {torch.nn.Linear}, torch.qint8)
    else:
        dtype = getattr(torch, work.weights)
        x, linear = x.to(dtype), linear.to(dtype)
    return functools.partial(linear, x)
