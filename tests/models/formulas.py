"""What the formulas of models that transformers lacks are written with: plain torch, one text, any dtype."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

Tensors = Mapping[str, Tensor]


def linear(tensors: Tensors, name: str, x: Tensor) -> Tensor:
    """x W^T, plus the bias if there is one."""
    return functional.linear(x, tensors[f"{name}.weight"], tensors.get(f"{name}.bias"))


def layer_norm(tensors: Tensors, name: str, x: Tensor, eps: float) -> Tensor:
    """LayerNorm with weight and bias."""
    return functional.layer_norm(x, x.shape[-1:], tensors[f"{name}.weight"], tensors[f"{name}.bias"], eps)


def rms_norm(tensors: Tensors, name: str, x: Tensor, eps: float) -> Tensor:
    """x over the root of its mean square, times the weight."""
    return tensors[f"{name}.weight"] * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps))


def inverse_frequencies(base: float, size: int) -> Tensor:
    """[size / 2] float32, in the steps of the models' code, whose powers are float32 too."""
    exponents = torch.arange(0, size, 2, dtype=torch.float32) / size
    return 1.0 / (base ** exponents.double()).float()


def rotated(x: Tensor, inverse: Tensor, interleaved: bool = False) -> Tensor:
    """x [T, H, E], whose first components are turned by the position; angles are float32."""
    angles = torch.outer(torch.arange(len(x), dtype=torch.float32), inverse)
    cos, sin = (f(angles.double()).to(x.dtype)[:, None] for f in (torch.cos, torch.sin))
    size = 2 * inverse.shape[0]
    turned, rest = x[..., :size], x[..., size:]
    a, b = (turned[..., ::2], turned[..., 1::2]) if interleaved else turned.chunk(2, -1)
    pair = (a * cos - b * sin, b * cos + a * sin)
    return torch.cat([torch.stack(pair, -1).flatten(-2) if interleaved else torch.cat(pair, -1), rest], -1)


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """q, k, v [T, H, E] to [T, H * E]; `bias` [H, T, T] is added to the scaled scores."""
    q, k, v = (x.transpose(0, 1) for x in (q, k, v))
    scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
    weights = torch.softmax(scores if bias is None else scores + bias, -1)
    return (weights @ v).transpose(0, 1).flatten(1)


def heads_of(x: Tensor, heads: int) -> Tensor:
    """[T, H * E] as [T, H, E]."""
    return x.reshape(len(x), heads, -1)
