"""What judges a checkpoint in bfloat16 and int8: torch with the same rounding, on the same weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from longspan.weights import Format


class Reference(Protocol):
    """What computes the vectors of all tokens of texts, in a dtype."""

    def token_vectors(self, folder: Path, dtype: torch.dtype, texts: Sequence[str]) -> list[Any]:
        """[T, D] float64 for each text."""


def judge_of(peer: Reference, weights: Format, folder: Path, texts: Sequence[str]) -> list[Any]:
    """The token vectors [T, D] of torch that rounds as a format does: our errors are measured by its errors."""
    if weights == "int8":
        with RoundedToBytes():
            return peer.token_vectors(folder, torch.float64, texts)
    return peer.token_vectors(folder, torch.float32 if weights == "float32" else torch.bfloat16, texts)


class RoundedToBytes(TorchFunctionMode):
    """While it is entered, both operands of linear layers are rounded to bytes, and nothing else is."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        match args:
            case [x, weight, *bias] if function is functional.linear:
                args = (rounded_rows(x), rounded_columns(weight), *bias)
            case [bias, x, weight] if function is torch.addmm:  # GPT-2's layers
                args = (bias, rounded_rows(x), rounded_columns(weight.T).T)
        return function(*args, **(kwargs or {}))


def rounded_rows(x: Tensor) -> Tensor:
    """Rows [..., K] as unsigned bytes of one scale and zero point each."""
    low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
    step = ((high - low) / 255).clamp(min=1e-30)
    zero = torch.round(-low / step)
    return (torch.clamp(torch.round(x / step + zero), 0, 255) - zero) * step


def rounded_columns(weight: Tensor) -> Tensor:
    """A weight [N, K] as signed bytes of one scale for each of N columns of the product."""
    step = (weight.abs().amax(-1, keepdim=True) / 127).clamp(min=1e-30)
    return torch.round(weight / step) * step
