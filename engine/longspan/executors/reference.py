"""The reference executor: plain torch, one short function per instruction. It defines what an instruction means.

Any dtype, any device. Matrix products run in the executor's dtype; norms, softmax and pooling in float32, or in
float64 where the dtype is float64. No intermediate grows faster than linearly in the number of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..batch import Float32, PackedBatch, Partials
from ..checkpoint.tensors import TensorView
from ..errors import CheckpointError
from ..program import instructions as ops
from ..program.instructions import Activation, Buffer, Weight
from ..program.program import Program

MLP_ROWS = 4096
"""Rows of one tile of `mlp`: only so many rows of the intermediate matrix exist at a time."""

ATTENTION_ROWS = 1024
"""Most query rows that `attention` handles at a time."""

ATTENTION_SCORES = 1 << 25
"""Most scores that `attention` holds at a time; long segments take fewer query rows at a time."""

ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "relu": functional.relu,
    "silu": functional.silu,
    "tanh": torch.tanh,
}


def widened(x: Tensor) -> Tensor:
    """x in float32, or as it is if that is float64."""
    return x if x.dtype == torch.float64 else x.float()


@dataclass(frozen=True, slots=True)
class Run:
    """One execution: the buffers by name, and what the instructions need besides them."""

    buffers: dict[str, Tensor]
    weights: Mapping[Weight, Tensor]
    batch: PackedBatch
    ids: Tensor  # [T] int64, on the device
    positions: Tensor  # [T] int64, on the device

    def __getitem__(self, buffer: Buffer) -> Tensor:
        return self.buffers[buffer.name]

    def __setitem__(self, buffer: Buffer, value: Tensor) -> None:
        if value.shape[1] != buffer.width:
            raise ValueError(f"{buffer} was given rows of width {value.shape[1]}")
        self.buffers[buffer.name] = value

    def plus(self, value: Tensor, residual: Buffer | None) -> Tensor:
        """value + residual, if there is one."""
        return value if residual is None else value + self[residual]

    def weight(self, weight: Weight | None) -> Tensor | None:
        """A weight that an instruction may lack."""
        return None if weight is None else self.weights[weight]


# --- the body: rows are tokens -------------------------------------------------------------------------------------


def embed(op: ops.Embed, run: Run) -> None:
    """out[t] = tokens[ids[t]] + positions[position[t] + position_offset] + types[0]."""
    x = run.weights[op.tokens][run.ids]
    if op.positions is not None:
        x = x + run.weights[op.positions][run.positions + op.position_offset]
    if op.types is not None:
        x = x + run.weights[op.types][0]
    run[op.out] = x


def norm(op: ops.Norm, run: Run) -> None:
    """out = (x - mean) / sqrt(var + eps) * weight + bias over each row, with the biased variance."""
    x = run[op.x]
    weight, bias = (None if w is None else widened(run.weights[w]) for w in (op.weight, op.bias))
    run[op.out] = functional.layer_norm(widened(x), (op.x.width,), weight, bias, op.eps).to(x.dtype)


def linear(op: ops.Linear, run: Run) -> None:
    """out = activation(x W^T + bias) + residual."""
    y = functional.linear(run[op.x], run.weights[op.weight], run.weight(op.bias))
    run[op.out] = run.plus(ACTIVATIONS[op.activation](y), op.residual)


def qkv(op: ops.Qkv, run: Run) -> None:
    """q, k, v = the column blocks of x W^T + bias, of H*E, G*E and G*E columns."""
    y = functional.linear(run[op.x], run.weights[op.weight], run.weight(op.bias))
    queries, keys = op.heads * op.head_size, op.kv_heads * op.head_size
    run[op.q], run[op.k], run[op.v] = y[:, :queries], y[:, queries : queries + keys], y[:, queries + keys :]


def attention(op: ops.Attention, run: Run) -> None:
    """out = softmax(q k^T * scale) v within each segment; query head h uses key/value head h // (H / G)."""

    def by_head(buffer: Buffer, heads: int) -> Tensor:  # [H, T, E]
        x = run[buffer].reshape(-1, heads, op.head_size).transpose(0, 1)
        return x.repeat_interleave(op.heads // heads, dim=0)

    q, k, v = by_head(op.q, op.heads), by_head(op.k, op.kv_heads), by_head(op.v, op.kv_heads)
    out = torch.empty_like(q)
    for start, end in pairwise(run.batch.cu_seqlens.tolist()):
        rows = max(1, min(ATTENTION_ROWS, ATTENTION_SCORES // (op.heads * max(1, end - start))))
        for first in range(start, end, rows):
            tile = slice(first, min(first + rows, end))
            scores = widened(q[:, tile] @ k[:, start:end].transpose(1, 2)) * op.scale
            out[:, tile] = torch.softmax(scores, dim=2).to(v.dtype) @ v[:, start:end]
    run[op.out] = out.transpose(0, 1).flatten(1)


def mlp(op: ops.Mlp, run: Run) -> None:
    """out = activation(x U^T + up_bias) W^T + down_bias + residual, tile by tile."""
    x = run[op.x]
    out = x.new_empty((len(x), op.out.width))
    for first in range(0, len(x), MLP_ROWS):
        tile = slice(first, first + MLP_ROWS)
        hidden = ACTIVATIONS[op.activation](functional.linear(x[tile], run.weights[op.up], run.weight(op.up_bias)))
        out[tile] = functional.linear(hidden, run.weights[op.down], run.weight(op.down_bias))
    run[op.out] = run.plus(out, op.residual)


def row_weights(partials: Partials, p: int, like: Tensor) -> Tensor:
    """The weight of each row of partial p, [rows], with dtype and device of `like`."""
    rows = torch.arange(int(partials.ends[p] - partials.starts[p]), dtype=like.dtype, device=like.device)
    return float(partials.first_weight[p]) + rows * float(partials.weight_step[p])


def pool(op: ops.Pool, run: Run) -> None:
    """out[p] = the weighted sum, or the elementwise maximum, of the rows of partial p; without rows 0, or -inf."""
    x = widened(run[op.x])
    partials = run.batch.partials[op.index]
    out = x.new_full((partials.count, op.out.width), 0.0 if op.kind == "sum" else -torch.inf)
    for p, (start, end) in enumerate(zip(partials.starts.tolist(), partials.ends.tolist(), strict=True)):
        if start < end:
            out[p] = row_weights(partials, p, x) @ x[start:end] if op.kind == "sum" else x[start:end].amax(0)
    run[op.out] = out


# --- the tail: rows are vectors ------------------------------------------------------------------------------------


def combine(op: ops.Combine, run: Run) -> None:
    """out[n, column:] = the mean, the mean by the root of the length, or the maximum, of vector n's partials."""
    values = run[op.partials]
    partials = run.batch.partials[op.index]
    if op.out.name not in run.buffers:
        run[op.out] = values.new_zeros((partials.vectors, op.out.width))
    out = run[op.out][:, op.column : op.column + op.partials.width]
    for n, (start, end) in enumerate(pairwise(partials.cu_vectors.tolist())):
        if all(partials.starts[p] == partials.ends[p] for p in range(start, end)):
            out[n] = 0.0
        elif op.kind == "maximum":
            out[n] = values[start:end].amax(0)
        else:
            total = torch.stack([row_weights(partials, p, values).sum() for p in range(start, end)]).sum()
            out[n] = values[start:end].sum(0) / (total if op.kind == "mean" else total.sqrt())


def normalize(op: ops.Normalize, run: Run) -> None:
    """out = the first columns of x, divided by max(their length, 1e-12) if `unit`."""
    x = run[op.x][:, : op.out.width]
    run[op.out] = functional.normalize(x, dim=1, eps=1e-12) if op.unit else x


MEANINGS: Mapping[type[ops.Instruction], Callable[[Any, Run], None]] = {
    ops.Embed: embed,
    ops.Norm: norm,
    ops.Linear: linear,
    ops.Qkv: qkv,
    ops.Attention: attention,
    ops.Mlp: mlp,
    ops.Pool: pool,
    ops.Combine: combine,
    ops.Normalize: normalize,
}


def as_tensor(view: TensorView) -> Tensor:
    """A copy of a checkpoint tensor in its own dtype; BF16 arrives as uint16 bits."""
    if view.dtype == "BF16":
        return torch.tensor(view.data.view(np.int16)).view(torch.bfloat16)
    return torch.tensor(view.data)


def load_weights(
    program: Program, tensors: Mapping[str, TensorView], *, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> dict[Weight, Tensor]:
    """The weights that a program uses, stacked and converted.

    Raises:
        CheckpointError: a tensor is missing or has another shape than the program expects.
    """
    weights = {}
    for weight in program.weights:
        missing = [name for name in weight.names if name not in tensors]
        if missing:
            raise CheckpointError(f"{program.name}: the checkpoint has no tensor {', '.join(missing)}")
        parts = [as_tensor(tensors[name]).to(device=device, dtype=dtype) for name in weight.names]
        weights[weight] = parts[0] if len(parts) == 1 else torch.cat(parts)
        if tuple(weights[weight].shape) != weight.shape:
            raise CheckpointError(f"{program.name}: {weight} has shape {list(weights[weight].shape)} in the checkpoint")
    return weights


def execute(
    program: Program, inputs: Mapping[str, Tensor], weights: Mapping[Weight, Tensor], batch: PackedBatch
) -> dict[str, Tensor]:
    """Run a program and return what its buffers hold at the end, by name, unrounded.

    The dtype and the device are those of `weights` (`load_weights`) and `inputs`: the contents of `program.inputs`
    by name, [rows, width].
    """
    device = next((tensor.device for tensor in (*weights.values(), *inputs.values())), torch.device("cpu"))
    ids, positions = (torch.tensor(array, dtype=torch.int64, device=device) for array in (batch.ids, batch.positions))
    run = Run(dict(inputs), weights, batch, ids, positions)
    with torch.inference_mode():
        for instruction in program.instructions:
            MEANINGS[type(instruction)](instruction, run)
    return run.buffers


def without_tokens(partials: tuple[Partials, ...]) -> PackedBatch:
    """A batch for a tail, whose instructions look at nothing but the partials."""
    empty = np.zeros(0, np.int32)
    return PackedBatch(empty, empty, np.zeros(1, np.int64), partials)


class ReferenceExecutor:
    """Runs a body, and tails, with torch.

    Args:
        body: the program that ends in `pool` instructions.
        tensors: the checkpoint, by name; the weights that the body uses are copied.
        dtype: of the token vectors and the matrix products; tails run in float32, or float64 if this is float64.
        device: where it runs; batches are sent there and only the pooled rows come back.

    Raises:
        CheckpointError: a tensor is missing or has another shape than the program expects.
    """

    def __init__(
        self,
        body: Program,
        tensors: Mapping[str, TensorView],
        *,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> None:
        self.body = body
        self.dtype = dtype
        self.device = device
        self._weights = load_weights(body, tensors, dtype=dtype, device=device)

    def run_body(self, batch: PackedBatch, *, poll: Callable[[int], None] | None = None) -> tuple[Float32, ...]:
        """One float32 array [P_i, D] per `pool`, by ascending index; `poll` is told once that all tokens are done."""
        buffers = execute(self.body, {}, self._weights, batch)
        if poll is not None:
            poll(batch.tokens)
        pools = sorted((op for op in self.body.instructions if isinstance(op, ops.Pool)), key=lambda op: op.index)
        return tuple(buffers[op.out.name].float().cpu().numpy() for op in pools)

    def run_tail(
        self,
        tail: Program,
        tensors: Mapping[str, TensorView],
        partials: tuple[Float32, ...],
        batch_partials: tuple[Partials, ...],
    ) -> Float32:
        """The vectors, float32 [N, width], from one array per entry of `tail.inputs`, [P_i, D]."""
        dtype = torch.float64 if self.dtype == torch.float64 else torch.float32
        weights = load_weights(tail, tensors, dtype=dtype, device=self.device)
        inputs = {
            buffer.name: torch.tensor(array, dtype=dtype, device=self.device)
            for buffer, array in zip(tail.inputs, partials, strict=True)
        }
        buffers = execute(tail, inputs, weights, without_tokens(batch_partials))
        result: Float32 = buffers[tail.outputs[0].name].float().cpu().numpy()
        return result
