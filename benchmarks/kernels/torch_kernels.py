"""torch's side: its own kernels (MKL, oneDNN) for the same work, in a process that is held to the same instructions.

Their rows have the dtype of the weights, of int8 float32; Longspan's are float32 here, whatever the weights.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from ..cpu.isa import TIERS
from .work import HEAD_SIZE, HEADS, Work

KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 32), "MALLOC_TRIM_THRESHOLD_": str(1 << 32)}
"""So that results that torch allocates are not new to the system each time."""


class TorchKernels:
    """One thread of torch. `why` says why there is none."""

    def __init__(self, tier: str) -> None:
        self.why = "" if tier in TIERS else f"torch cannot be held to {tier}"
        if self.why:
            return
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        with _environment({**TIERS[tier], **KEEP_MEMORY}):
            self._process.start()
        theirs.close()
        self.why = self._receive()

    def seconds(self, work: Work, repeats: int) -> float | None:
        """Of so many runs, or None where torch has no kernel for it."""
        if self.why:
            return None
        self._pipe.send((work, repeats))
        answer: float | None = self._receive()
        return answer

    def close(self) -> None:
        """Ends the process."""
        if hasattr(self, "_process"):
            self._pipe.close()
            self._process.join()

    def _receive(self) -> Any:
        try:
            return self._pipe.recv()
        except EOFError as error:
            self._process.join()
            raise RuntimeError(f"torch's process ended with code {self._process.exitcode}") from error


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """These for processes that are started meanwhile."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _serve(pipe: Connection) -> None:
    """Says why torch cannot be used, or "", then answers work with seconds until the other side closes the pipe."""
    try:
        import torch
    except ImportError as error:
        pipe.send(str(error))
        return
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    pipe.send("")
    while True:
        try:
            work, repeats = pipe.recv()
        except EOFError:
            return
        run = _kernel(work)
        if run is None:
            pipe.send(None)
            continue
        start = time.perf_counter()
        for _ in range(repeats):
            run()
        pipe.send(time.perf_counter() - start)


@functools.lru_cache(maxsize=1)
def _kernel(work: Work) -> Callable[[], Any] | None:
    """The work over the same random numbers each time, run once already."""
    import torch

    if work.instruction == "attention":
        if work.weights == "int8":  # torch has none over bytes
            return None
        q, k, v = torch.randn(3, 1, HEADS, work.tokens, HEAD_SIZE, dtype=getattr(torch, work.weights))
        attend = functools.partial(torch.nn.functional.scaled_dot_product_attention, q, k, v)
        attend()
        return attend
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
    linear(x)
    return functools.partial(linear, x)
