"""torch's side: its own kernels for the same work, in a process that is held to the same instructions.

They are MKL's, oneDNN's and, for int8, FBGEMM's, which knows no AMX. Rows have the dtype of the weights, with int8
float32; Longspan's are float32 here, whatever the weights.
"""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable
from typing import Any

from ..cpu.isa import TIERS
from ..elsewhere import Answer, Elsewhere
from ..peers import UnavailableError
from .work import HEAD_SIZE, HEADS, Work

KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 32), "MALLOC_TRIM_THRESHOLD_": str(1 << 32)}
"""So that results that torch allocates are not new to the system each time."""


class TorchKernels:
    """One thread of torch. `why` says why there is none, or none any more."""

    def __init__(self, tier: str) -> None:
        self.why = "" if tier in TIERS else f"torch cannot be held to {tier}"
        self._process: Elsewhere | None = None
        if not self.why:
            try:
                self._process = Elsewhere(_make, environment={**TIERS[tier], **KEEP_MEMORY})
            except UnavailableError as error:
                self.why = str(error)

    def seconds(self, work: Work, repeats: int) -> float | None:
        """Of so many runs, or None where torch has no kernel for it."""
        if self._process is None or self.why:
            return None
        try:
            seconds: float | None = self._process.ask((work, repeats))
        except UnavailableError as error:
            self.why, seconds = str(error), None
        return seconds

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.close()


def _make() -> tuple[None, Answer]:
    """What answers work with seconds. Whatever torch raises ends its column, not the table."""
    try:
        import torch
    except (ImportError, OSError) as error:
        raise UnavailableError(str(error)) from error
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)

    def answer(request: tuple[Work, int]) -> float | None:
        work, repeats = request
        try:
            run = _kernel(work)
            return None if run is None else _timed(run, repeats)
        except Exception as error:
            raise UnavailableError(f"{type(error).__name__}: {error}") from error

    return None, answer


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
