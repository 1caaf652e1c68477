"""A checkpoint's model before it is packed: its body and its tensors, with what a caller changes about them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .checkpoint.adaptations import read_adaptations
from .checkpoint.adapter import with_adapter
from .checkpoint.computed import ComputedView
from .checkpoint.config import read_json
from .checkpoint.extras import Extras, Inside
from .checkpoint.modules import LayerPooling
from .checkpoint.panels import panel_file
from .checkpoint.recipe import Recipe
from .checkpoint.tensor_view import TensorView
from .checkpoint.tensors import Tensors
from .errors import CheckpointError, InputError
from .models import build_body
from .models.binding import bind
from .models.config import ModelConfig
from .models.extend import Extension, extend_body, stretched_rows
from .models.family import Body
from .models.foreign import foreign
from .models.jina_v5 import with_task_adapters
from .models.layers import LayerChoice, choose_layers, weighted_layers
from .models.native_names import stored_as
from .models.static import static
from .models.surplus import check_surplus
from .program.instructions import Embed
from .program.operands import Weight
from .program.program import Program


@dataclass(frozen=True, slots=True)
class Changes:
    """What a caller changes about a checkpoint's model.

    Attributes:
        adapter: the folder of a LoRA that is merged into the weights.
        layers: which layers count.
        foreign: transformers runs the model; only its token vectors are known here.
        extension: to more positions than the checkpoint has.
        said_by: the file that wants these layers and this extension, for messages; None where the caller does.
    """

    adapter: Path | None = None
    layers: LayerChoice = LayerChoice()
    foreign: bool = False
    extension: Extension | None = None
    said_by: Path | None = None

    @classmethod
    def of(cls, given: Inside, saved: Extras, adapter: Path | None = None, *, foreign: bool = False) -> Changes:
        """The changes that options of `Encoder` ask for, or else a saved folder.

        Raises:
            InputError: an option is not usable.
            CheckpointError: what the folder says is not.
        """
        inside = given.over(saved.inside)
        said_by = saved.path if inside == saved.inside else None
        with blaming(said_by):
            extension = Extension.of(inside.extend, inside.extend_to)
        return cls(adapter, LayerChoice(inside.layers, inside.tap), foreign, extension, said_by)

    @property
    def inside(self) -> bool:
        """Whether something in the model changes."""
        return self.adapter is not None or self.layers != LayerChoice() or self.extension is not None


@contextlib.contextmanager
def blaming(file: Path | None) -> Iterator[None]:
    """What is not usable is the fault of a file, if there is one, and not of the caller."""
    try:
        yield
    except InputError as error:
        if file is None:
            raise
        raise CheckpointError(f"{file}: {error}") from error


@dataclass(frozen=True, slots=True)
class Backbone:
    """A body and where its weights are.

    Attributes:
        body: the model.
        tensors: the checkpoint's, changed.
        vocabulary: how many token ids have embeddings.
    """

    body: Body
    tensors: Tensors
    vocabulary: int

    def bound(self, program: Program) -> Mapping[str, TensorView]:
        """The tensors of a program made of the body, under its own names; all of them where others run it."""
        return bind(program, self.tensors, self.body.prefixes, self.body.renamed) if program.weights else self.tensors


def load_backbone(recipe: Recipe, changes: Changes) -> Backbone:
    """Reads config and headers of a checkpoint; weights are mapped, not read.

    Raises:
        CheckpointError: the checkpoint is incomplete, contradictory or not supported.
        InputError: the changes do not fit it.
    """
    path = recipe.files.config
    if changes.foreign:
        if changes.inside or recipe.layer_pooling is not None:
            raise InputError(
                "backend='transformers' runs a model as it is: without adapter, layers, tap, extend and layer pooling"
            )
        body, vocabulary = foreign(recipe.files.folder)
        return Backbone(body, Tensors(recipe.files.folder, {}), vocabulary)
    tensors = adapted_tensors(recipe, changes)
    if recipe.static:
        if changes.inside:
            raise InputError(
                f"{recipe.files.folder} is a table of token vectors: it has no layers and no positions to extend"
            )
        body = static(tensors)
        return Backbone(body, tensors, _vocabulary(body))
    config = read_json(path) | ({"is_causal": False} if recipe.both_sides else {})
    fields = ModelConfig(path, config, tensors=tensors.keys())
    whole = build_body(fields)
    adaptations = read_adaptations(fields)
    if adaptations is not None and adaptations.folders:
        whole, tensors = with_task_adapters(whole, tensors, adaptations.folders)
    with blaming(changes.said_by):
        body, tensors = _chosen(whole, tensors, changes)
    if recipe.layer_pooling is not None:
        body, tensors = _weighted(body, tensors, recipe.layer_pooling)
    return Backbone(body, tensors, _vocabulary(body))


def _chosen(whole: Body, tensors: Tensors, changes: Changes) -> tuple[Body, Tensors]:
    """The body with the layers and the positions that are wanted, once all that it needs is there."""
    in_panels = panel_file(tensors.values()) is not None
    program = (choose_layers(whole, changes.layers) if in_panels else whole).pooled([])  # panels may lack the others
    bound = bind(program, tensors, whole.prefixes, whole.renamed)
    if not in_panels:
        check_surplus(whole, tensors, bound)
    if changes.extension is not None:
        whole, tensors = _extended(whole, tensors, bound, changes.extension)
    return choose_layers(whole, changes.layers), tensors


def adapted_tensors(recipe: Recipe, changes: Changes) -> Tensors:
    """A checkpoint's tensors, with the adapters that belong to it and to the changes; raises as `load_backbone`."""
    tensors = Tensors.open(recipe.files.weights)
    if changes.adapter is not None and recipe.static:
        raise InputError(f"{recipe.files.folder} is a table of token vectors, which takes no adapter")
    for adapter in (recipe.files.adapter, changes.adapter):
        if adapter is not None:
            tensors = with_adapter(tensors, adapter, partial(stored_as, tensors=tensors))
    return tensors


def _vocabulary(body: Body) -> int:
    tables = (step.tokens for step in body.instructions if isinstance(step, Embed))
    return next(table.shape[0] for table in tables if table is not None)


def _extended(
    body: Body, tensors: Tensors, bound: Mapping[str, TensorView], extension: Extension
) -> tuple[Body, Tensors]:
    """The body with more positions, and the tensors with the table of positions that it may have instead."""
    longer, made = extend_body(body, extension), {}
    for old, new in zip(body.instructions, longer.instructions, strict=True):
        if isinstance(old, Embed) and isinstance(new, Embed) and old.positions != new.positions:
            assert old.positions is not None
            assert new.positions is not None
            assert new.position_map is not None
            (name,), view = new.positions.names, bound[old.positions.names[0]]
            make = partial(stretched_rows, first=new.position_offset, factor=new.position_map.factor)
            made[name] = ComputedView(name, new.positions.shape, [view], make)
    return longer, Tensors(tensors.source, {**tensors, **made})


def _weighted(body: Body, tensors: Tensors, pooling: LayerPooling) -> tuple[Body, Tensors]:
    """The body that averages its layers, and the tensors with the weights of that."""
    if pooling.layers != body.layers:
        raise CheckpointError(
            f"{pooling.folder / 'config.json'}: 'num_hidden_layers' is {pooling.layers}, but the model has "
            f"{body.layers}."
        )
    name = f"{pooling.folder}/layer_weights"
    own = Tensors.open(pooling.folder).require("layer_weights", (pooling.count,))
    body = weighted_layers(body, Weight((name,), (pooling.count,)), pooling.first)
    return body, Tensors(tensors.source, {**tensors, name: own})
