"""What `save` writes of bodies with narrow weights: their matrices as the executor holds them, the rest as it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from .backbone import Changes, load_backbone
from .checkpoint.panels import PACKED_TYPES, PARTS
from .checkpoint.recipe import Recipe
from .checkpoint.saving import PackedBody
from .checkpoint.writing import NewTensor
from .executors.cpu import CpuExecutor, Panels
from .pipeline import Pipeline
from .program.operands import Weight
from .weights import Format


def packed_bodies(pipelines: Sequence[Pipeline]) -> dict[Path, PackedBody]:
    """By the transformer's folder, those whose weights are in a format that is stored in panels.

    Raises:
        CheckpointError: the checkpoint is not any more what it was when it was loaded.
    """
    found: dict[Path, PackedBody] = {}
    for pipeline in pipelines:
        executor, recipe = pipeline.executor, pipeline.recipe
        if isinstance(executor, CpuExecutor) and executor.format in PACKED_TYPES and recipe.files.folder not in found:
            body = _packed(recipe, executor)
            if body.packed:  # a table of token vectors has no matrices
                found[recipe.files.folder] = body
    return found


def _packed(recipe: Recipe, executor: CpuExecutor) -> PackedBody:
    backbone = load_backbone(recipe, Changes())
    bound = backbone.bound(executor.body)
    # Names are the checkpoint's from here on. A module's own weights, such as those of a layer pooling, are not its.
    stored = {name: view.name for name, view in bound.items() if backbone.tensors.get(view.name) is view}
    matrices = dict(executor.panels())
    plain = {name for weight in executor.body.weights if weight not in matrices for name in weight.names}
    inside = {weight: arrays for weight, arrays in matrices.items() if plain.isdisjoint(weight.names)}
    packed = {stored[name]: bound[name] for weight in inside for name in weight.names}
    others = {stored[name]: bound[name] for name in stored if stored[name] not in packed}
    return PackedBody(
        executor.format,
        (
            *(part for weight, arrays in inside.items() for part in _parts(weight, arrays, executor.format)),
            *(NewTensor(name, view.dtype, view.shape, (view.data,)) for name, view in others.items()),
        ),
        packed,
    )


def _parts(weight: Weight, matrices: Sequence[Panels], weights: Format) -> Iterator[NewTensor]:
    """The tensors of a matrix, or of as many as there are experts."""
    for part, arrays in zip(PARTS, zip(*matrices, strict=True), strict=True):
        given = tuple(array for array in arrays if array is not None)
        if given:
            first, *others = given[0].shape
            dtype = PACKED_TYPES[weights] if part == PARTS[0] else "F32"
            yield NewTensor(f"{weight.key}.{part}", dtype, (len(given) * first, *others), given)
