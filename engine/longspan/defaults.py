"""What an encoder does where a call says nothing, and from both to the `Options` of the call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .checkpoint.extras import Extras
from .checkpoint.recipe import Recipe
from .checkpoint.settings import Settings
from .checks import checked_prompts, is_count
from .errors import InputError
from .options import Options, check_long_text
from .pipeline import Pipeline
from .pooling.precision import check_precision
from .pooling.tail import own_ranges
from .text.inputs import check_text

DOCUMENT_PROMPTS = ("document", "passage", "corpus")


def initial_settings(extras: Extras, recipe: Recipe, given: Mapping[str, Any]) -> Settings:
    """What was given by the name of a setting, else what the folder says, else the usual.

    Raises:
        InputError: the prompts are not usable.
    """
    own_prompts = checked_prompts(dict(recipe.prompts))
    return Settings(
        max_seq_length=given["max_seq_length"],
        truncate_dim=_first(given["truncate_dim"], recipe.truncate_dim),
        long_text=_first(given["long_text"], extras.long_text, "window"),
        prompts={"query": "", "document": "", **own_prompts, **checked_prompts(given["prompts"])},
        default_prompt_name=_first(given["default_prompt_name"], recipe.default_prompt_name),
        similarity_fn_name=_first(given["similarity_fn_name"], recipe.similarity_fn_name, "cosine"),
        ranges=extras.ranges,
    )


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


@dataclass(frozen=True, slots=True)
class Defaults:
    """An encoder's settings, beside the pipeline of a call."""

    settings: Settings
    pipeline: Pipeline

    def check(self) -> None:
        """Raise an InputError if a setting is not usable."""
        check_long_text(self.settings.long_text)
        checked_prompts(self.settings.prompts)
        self.prompt(None, None)
        self.dimension(None)

    def prompt_name(self, names: Sequence[str], prompt_name: str | None, prompt: str | None) -> str | None:
        """The name that was asked for, else the task's, else the first of `names` with a prompt, else the first.

        Never the default's.
        """
        if prompt_name is not None or prompt is not None:
            return prompt_name
        given = (name for name in names if self.settings.prompts.get(name))
        return _first(self._task_prompt_name, next(given, names[0]))  # type: ignore[no-any-return]

    def prompt(self, prompt_name: str | None, prompt: str | None) -> str:
        """What is put before the texts; raises an InputError if there is no prompt of that name, or it is no text."""
        if prompt is not None:
            return check_text(prompt, "prompt")
        prompts = self.settings.prompts
        name = _first(prompt_name, self._task_prompt_name, self.settings.default_prompt_name)
        if name is None:
            return ""
        if not isinstance(name, str) or name not in prompts:
            known = ", ".join(map(repr, prompts))
            raise InputError(f"there is no prompt named {name!r}; known are {known}")
        return check_text(prompts[name], f"prompts[{name!r}]")

    @property
    def _task_prompt_name(self) -> str | None:
        """The name of the prompt that belongs to the adaptation of the pipeline, if there is one."""
        own = self.pipeline.recipe.adaptation
        return own.name if own is not None and own.name in self.settings.prompts else None

    def dimension(self, truncate_dim: int | None) -> int:
        """The dimension of the vectors; raises an InputError if the checkpoint cannot give so many components."""
        dimension, whole = _first(truncate_dim, self.settings.truncate_dim), self.pipeline.dimension
        if dimension is None:
            return whole
        if not is_count(dimension, 1) or dimension > whole:
            raise InputError(f"truncate_dim is {dimension!r}, expected an integer from 1 to the model's {whole}")
        return int(dimension)

    def options(
        self,
        prompt: str,
        long_text: str,
        truncate_dim: int | None,
        normalize_embeddings: bool,
        precision: str,
        window_overlap: int | None = None,
        **rest: Any,
    ) -> Options:
        """How a call treats its texts; `rest` goes to `Options` as it is.

        Raises:
            InputError: an option is not usable.
        """
        if window_overlap is not None and not is_count(window_overlap, 0):
            raise InputError(f"window_overlap is {window_overlap!r}, expected an integer of at least 0")
        dimension = self.dimension(truncate_dim)
        ranges = self.settings.ranges.get(dimension) or own_ranges(self.pipeline.recipe.tail, dimension)
        if check_precision(precision) in ("int8", "uint8") and ranges is None:
            given = "" if dimension == self.dimension(None) else f", truncate_dim={dimension}"
            raise InputError(
                f"precision {precision!r} needs ranges for vectors of {dimension} components: call "
                f"encoder.calibrate(texts{given}) with texts like yours first"
            )
        unit = bool(self.pipeline.unit or normalize_embeddings)
        if precision in ("int8", "uint8") and ranges is not None:
            ranges.check_unit(unit)
        return Options(
            prompt=prompt,
            max_seq_length=self.pipeline.length(self.settings.max_seq_length),
            long_text=check_long_text(long_text),
            dimension=dimension,
            unit=unit,
            precision=check_precision(precision),
            ranges=ranges,
            window_overlap=None if window_overlap is None else int(window_overlap),
            **rest,
        )
