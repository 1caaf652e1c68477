"""The weights that `save` writes anew: matrices as the executor holds them, or a checkpoint with its adapter merged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .backbone import Changes, adapted_tensors, load_backbone
from .checkpoint.panels import FILE, PACKED_TYPES, PARTS, panel_metadata, stacked
from .checkpoint.recipe import Recipe
from .checkpoint.saving import NewWeights
from .checkpoint.tensor_view import TensorView
from .checkpoint.tensors import WEIGHTS
from .checkpoint.writing import NewTensor
from .executors.cpu import CpuExecutor, Panels
from .pipeline import Pipeline
from .program.operands import Weight
from .weights import Format


def new_weights(pipelines: Sequence[Pipeline], changes: Changes) -> dict[Path, NewWeights]:
    """By the transformer's folder, those whose weights are in panels, or merged with an adapter; others are copied.

    Args:
        pipelines: of the model.
        changes: that it was loaded with.

    Raises:
        CheckpointError: the checkpoint is not any more what it was when it was loaded.
    """
    found: dict[Path, NewWeights] = {}
    for pipeline in pipelines:
        executor, recipe = pipeline.executor, pipeline.recipe
        place = recipe.files.folder
        if place in found:
            continue
        if isinstance(executor, CpuExecutor) and executor.format in PACKED_TYPES:
            body = _packed(recipe, executor, changes)
            if body is not None:
                found[place] = body
                continue
        if changes.adapter is not None or recipe.files.adapter is not None:
            found[place] = _merged(recipe, changes)
    return found


def _merged(recipe: Recipe, changes: Changes) -> NewWeights:
    """All tensors of the checkpoint, heads too; what the adapter changes is float32, as it is computed."""
    tensors = adapted_tensors(recipe, changes)
    return NewWeights(WEIGHTS, tuple(_plain(name, view) for name, view in tensors.items()), {"format": "pt"})


def _packed(recipe: Recipe, executor: CpuExecutor, changes: Changes) -> NewWeights | None:
    """None for a table of token vectors, which has no matrices."""
    # What an extension makes of the table of positions is made anew of the table itself.
    backbone = load_backbone(recipe, replace(changes, extension=None))
    bound = backbone.bound(backbone.body.pooled([]))
    # Names are the checkpoint's from here on. A module's own weights, such as those of a layer pooling, are not its.
    stored = {name: view.name for name, view in bound.items() if backbone.tensors.get(view.name) is view}
    matrices = dict(executor.panels())
    plain = {name for weight in executor.body.weights if weight not in matrices for name in weight.names}
    inside = {weight: arrays for weight, arrays in matrices.items() if plain.isdisjoint(weight.names)}
    packed = {stored[name]: bound[name] for weight in inside for name in weight.names}
    if not packed:
        return None
    others = {stored[name]: bound[name] for name in stored if stored[name] not in packed}
    return NewWeights(
        FILE,
        (
            *(part for weight, arrays in inside.items() for part in _parts(weight, arrays, executor.format)),
            *(_plain(name, view) for name, view in others.items()),
        ),
        panel_metadata(
            executor.format,
            packed,
            int8_attention=executor.format == "int8" and executor.bears_int8_attention,
        ),
        executor.format,
    )


def _plain(name: str, view: TensorView) -> NewTensor:
    """A tensor as it is; read, or computed, when it is written."""

    def parts() -> Iterator[npt.NDArray[Any]]:
        yield np.ascontiguousarray(view.data)
        view.release()

    return NewTensor(name, view.dtype, view.shape, parts())


def _parts(weight: Weight, matrices: Sequence[Panels], weights: Format) -> Iterator[NewTensor]:
    """The tensors of a matrix, or of as many as there are experts."""
    for part, arrays, shape in stacked(matrices):
        dtype = PACKED_TYPES[weights] if part == PARTS[0] else "F32"
        yield NewTensor(f"{weight.key}.{part}", dtype, shape, arrays)
