"""Which pipeline a call goes through: the only one, or with a Router that of the call's task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .backbone import Changes
from .checkpoint.choices import NOTHING, Choices
from .checkpoint.files import Find
from .checkpoint.folder import find_model
from .checkpoint.recipe import Recipe, Recipes, read_recipes
from .errors import InputTypeError
from .executors.choice import MakeExecutor
from .pipeline import Pipeline, Trunk
from .pooling.modes import pool_kinds


@dataclass(frozen=True, slots=True)
class Routing:
    """A checkpoint's pipelines.

    Attributes:
        recipes: what the checkpoint says.
        pipelines: one for each of the recipes.
    """

    recipes: Recipes
    pipelines: tuple[Pipeline, ...]

    @classmethod
    def load(
        cls,
        folder: Path,
        make_executor: MakeExecutor,
        changes: Changes,
        choices: Choices = NOTHING,
        find: Find = find_model,
        *,
        serial: bool = False,
    ) -> Routing:
        """Load a model folder; routes that go through the same transformer share its weights.

        Args:
            folder: the model's.
            make_executor: as for `Trunk.load`.
            changes, choices: what a caller wants of it.
            find: finds the model that an adapter is for, where the folder is one.
            serial: as for `Trunk.load`.

        Raises:
            CheckpointError: it is incomplete, damaged or not supported.
            InputError: the changes or the choices do not fit it.
        """
        recipes = read_recipes(folder, choices, changes.adapter, find)
        trunks: dict[object, Trunk] = {}
        for recipe in recipes.all:
            if _shared(recipe) not in trunks:
                trunks[_shared(recipe)] = Trunk.load(recipe, make_executor, changes, serial=serial)
        return cls(recipes, tuple(Pipeline(folder, recipe, trunks[_shared(recipe)]) for recipe in recipes.all))

    @property
    def main(self) -> Pipeline:
        """That of a call without a task, else the first."""
        return self.pipelines[self.recipes.all.index(self.recipes.main)]

    def of(self, task: str | None) -> Pipeline:
        """That of a task.

        Raises:
            InputTypeError: the task is no string.
            InputError: there is none for it.
        """
        if task is not None and not isinstance(task, str):
            raise InputTypeError(f"task is {type(task).__name__}, expected a string")
        return self.pipelines[self.recipes.place(task)]


def _shared(recipe: Recipe) -> object:
    """Recipes of which this is equal have the same trunk."""
    kinds = pool_kinds(recipe.pooling)
    text = recipe.lower_case, recipe.wrap
    return recipe.files, recipe.static, text, recipe.layer_pooling, recipe.both_sides, kinds
