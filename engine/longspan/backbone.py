"""A checkpoint's model before it is packed: its body and its tensors, with what a caller changes about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .checkpoint.adapter import with_adapter
from .checkpoint.computed import ComputedView
from .checkpoint.config import read_json
from .checkpoint.modules import LayerPooling
from .checkpoint.recipe import Recipe
from .checkpoint.tensor_view import TensorView
from .checkpoint.tensors import Tensors
from .errors import CheckpointError, InputError
from .models import build_body
from .models.binding import bind, check_surplus
from .models.config import ModelConfig
from .models.extend import Extension, extend_body, stretched_rows
from .models.family import Body
from .models.foreign import foreign
from .models.layers import LayerChoice, choose_layers, weighted_layers
from .models.static import static
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
    """

    adapter: Path | None = None
    layers: LayerChoice = LayerChoice()
    foreign: bool = False
    extension: Extension | None = None

    @property
    def inside(self) -> bool:
        """Whether something in the model changes."""
        return self.adapter is not None or self.layers != LayerChoice() or self.extension is not None


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
        own = ModelConfig.read(path)
        return Backbone(foreign(own), Tensors(recipe.files.folder, {}), own.integer("vocab_size"))
    tensors = Tensors.open(recipe.files.weights)
    if recipe.static:
        if changes.inside:
            raise InputError(
                f"{recipe.files.folder} is a table of token vectors: it has no layers and takes no adapter, nor has it "
                "positions to extend"
            )
        body = static(tensors)
        return Backbone(body, tensors, _vocabulary(body))
    for adapter in (recipe.files.adapter, changes.adapter):
        if adapter is not None:
            tensors = with_adapter(tensors, adapter)
    config = read_json(path) | ({"is_causal": False} if recipe.both_sides else {})
    whole = build_body(ModelConfig(path, config, tensors=tensors.keys()))
    program = whole.pooled([])
    bound = bind(program, tensors, whole.prefixes, whole.renamed)
    check_surplus(program, tensors, bound)
    if changes.extension is not None:
        whole, tensors = _extended(whole, tensors, bound, changes.extension)
    body = choose_layers(whole, changes.layers)
    if recipe.layer_pooling is not None:
        body, tensors = _weighted(body, tensors, recipe.layer_pooling)
    return Backbone(body, tensors, _vocabulary(body))


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
            made[name] = ComputedView(name, new.positions.shape, view, make)
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
