"""The reference executor: runs a program with torch, each instruction as `meanings` defines it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from ..batch import Float32, PackedBatch, Partials
from ..checkpoint.tensor_view import TensorView
from ..errors import CheckpointError
from ..program import instructions as ops
from ..program.operands import Weight
from ..program.program import Program
from ..program.rope import RopeTables
from .ceiling import Ceiling
from .meanings import MEANINGS, Run


def as_tensor(weight: Weight, view: TensorView) -> Tensor:
    """A copy of a checkpoint tensor, in its own dtype, as rows of the weight; BF16 arrives as uint16 bits."""
    rows = weight.arrange(view.data)
    if view.dtype == "BF16":
        return torch.tensor(rows.view(np.int16)).view(torch.bfloat16)
    return torch.tensor(rows)


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
        parts = [as_tensor(weight, tensors[name]).to(device=device, dtype=dtype) for name in weight.names]
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
    run = Run(dict(inputs), weights, batch, ids, positions, RopeTables())
    with torch.inference_mode():
        for instruction in program.instructions:
            MEANINGS[type(instruction)](instruction, run)
    return run.buffers


def without_tokens(partials: tuple[Partials, ...]) -> PackedBatch:
    """A batch for a tail, whose instructions look at nothing but the partials."""
    empty = np.zeros(0, np.int32)
    return PackedBatch(empty, empty, np.zeros(1, np.int64), partials)


class ReferenceExecutor:
    """Runs a body, and tails, with torch, in as much memory as that takes.

    Args:
        body: the program that ends in `pool` instructions.
        tensors: the checkpoint, by name; the weights that the body uses are copied.
        dtype: of the token vectors and the matrix products; tails run in float32, or float64 if this is float64.
        device: where it runs; batches are sent there and only the pooled rows come back.

    Raises:
        CheckpointError: a tensor is missing or has another shape than the program expects.
    """

    ceiling: Ceiling | None = None

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

    def release(self) -> None:
        """Nothing: nothing is held."""

    def prepare_tail(self, tail: Program, tensors: Mapping[str, TensorView]) -> None:
        """Nothing: there is no ceiling."""

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
