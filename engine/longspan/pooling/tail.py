"""The tail: what turns combined partials into the final vector, as a program over vector rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..checkpoint.recipe import DenseModule, LayerNormModule, NormalizeModule, TailModule, TanhQuantizeModule
from ..checkpoint.tensor_view import TensorView
from ..checkpoint.tensors import Tensors
from ..errors import CheckpointError
from ..models.family import partials_buffer
from ..program.instructions import Combine, Instruction, Linear, Norm, Normalize, TanhQuantize
from ..program.operands import Buffer, Rows, Weight
from ..program.program import Program
from .modes import mode_of
from .precision import Ranges


def tail_width(pooling: Sequence[str], width: int, modules: Sequence[TailModule]) -> int:
    """The dimension of the vectors before any cut."""
    dense = [module.out_features for module in modules if isinstance(module, DenseModule)]
    return dense[-1] if dense else width * len(pooling)


def ends_in_normalize(modules: Sequence[TailModule]) -> bool:
    """Whether the checkpoint's own vectors have unit length."""
    return bool(modules) and isinstance(modules[-1], NormalizeModule)


def own_ranges(modules: Sequence[TailModule], dimension: int) -> Ranges | None:
    """The ranges of vectors that are int8's integers already, and stay so; None for those of any other checkpoint."""
    if not modules or not isinstance(modules[-1], TanhQuantizeModule):
        return None
    low, high = (np.full(dimension, value, np.float32) for value in (-128, 127))
    return Ranges(low, high, unit=False)


def build_tail(
    pooling: Sequence[str],
    width: int,
    modules: Sequence[TailModule],
    *,
    dimension: int,
    unit: bool,
) -> Program:
    """Combine, the checkpoint's modules, then the Matryoshka cut and unit length in one step.

    Args:
        pooling: the modes, concatenated.
        width: of the token vectors.
        modules: the checkpoint's, in order.
        dimension: of the result; the leading components are kept.
        unit: whether the result has unit length. A final Normalize of the checkpoint is part of this last step.
    """
    steps: list[Instruction] = []
    inputs = tuple(partials_buffer(index, width) for index in range(len(pooling)))
    x = Buffer("combined", Rows.VECTORS, width * len(pooling))
    for index, (mode, partials) in enumerate(zip(pooling, inputs, strict=True)):
        kind = mode_of(mode).combine
        steps.append(Combine(stage=0, partials=partials, out=x, kind=kind, index=index, column=index * width))
    body = modules[:-1] if ends_in_normalize(modules) else modules
    for number, module in enumerate(body):
        steps += _module_steps(module, x, f"module{number}")
        (x,) = steps[-1].writes
    out = Buffer("vectors", Rows.VECTORS, dimension)
    steps.append(Normalize(stage=0, x=x, out=out, unit=unit))
    return Program("tail", tuple(steps), outputs=(out,), inputs=inputs)


def _module_steps(module: TailModule, x: Buffer, name: str) -> list[Instruction]:
    if isinstance(module, NormalizeModule):
        return [Normalize(stage=0, x=x, out=Buffer(name, Rows.VECTORS, x.width), unit=True)]
    if isinstance(module, TanhQuantizeModule):
        return [TanhQuantize(stage=0, x=x, out=Buffer(name, Rows.VECTORS, x.width))]
    at = module.folder
    if isinstance(module, LayerNormModule):
        scale, shift = Weight((f"{at}/norm.weight",), (x.width,)), Weight((f"{at}/norm.bias",), (x.width,))
        out = Buffer(name, Rows.VECTORS, x.width)
        return [Norm(stage=0, x=x, out=out, weight=scale, bias=shift, eps=module.eps)]
    if module.in_features != x.width:
        raise CheckpointError(f"{module.folder}: in_features is {module.in_features}, the vectors have {x.width}.")
    shape = (module.out_features, module.in_features)
    steps: list[Instruction] = []
    residual = x if module.use_residual else None
    if module.use_residual and module.in_features != module.out_features:
        residual = Buffer(f"{name}_residual", Rows.VECTORS, module.out_features)
        steps.append(Linear(stage=0, x=x, out=residual, weight=Weight((f"{at}/residual.weight",), shape)))
    dense = Linear(
        stage=0,
        x=x,
        out=Buffer(name, Rows.VECTORS, module.out_features),
        weight=Weight((f"{at}/linear.weight",), shape),
        bias=Weight((f"{at}/linear.bias",), (module.out_features,)) if module.bias else None,
        activation=module.activation,
        residual=residual,
    )
    return [*steps, dense]


def tail_tensors(folder: Path, modules: Sequence[TailModule]) -> Tensors:
    """The tail's tensors, each under its module's folder ("…/2_Dense/linear.weight")."""
    tensors: dict[str, TensorView] = {}
    for module in modules:
        if isinstance(module, DenseModule | LayerNormModule):
            views = Tensors.open(module.folder)
            tensors |= {f"{module.folder}/{name}": view for name, view in views.items()}
    return Tensors(folder, tensors)
