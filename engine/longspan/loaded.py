"""A loaded model: what it is, what is set of it, how it is saved, and how its vectors are compared."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .backbone import Changes
from .batch import Float32
from .checkpoint.choices import Choices
from .checkpoint.extras import Inside
from .checkpoint.recipe import SIMILARITIES, SimilarityName
from .checkpoint.settings import Settings
from .checks import is_count, one_of
from .defaults import Defaults
from .errors import InputError
from .pipeline import Pipeline
from .pooling.precision import Ranges
from .routing import Routing
from .similarity import similarity, similarity_pairwise

if TYPE_CHECKING:
    import tokenizers

    from .plan import Plan

PathLike = str | os.PathLike[str]


class LoadedModel:
    """The part of `Encoder` that turns no texts into vectors; what its settings mean is said there."""

    device: str
    truncate_dim: int | None
    long_text: str
    prompts: dict[str, str]
    default_prompt_name: str | None
    ranges: Mapping[int, Ranges]
    _arguments: dict[str, Any]  # what it was made with, by the names of `Encoder`'s arguments
    _folder: Path
    _inside: Inside
    _changes: Changes
    _choices: Choices
    _routing: Routing
    _max_seq_length: int | None = None  # the checkpoint's own, which tasks may differ in

    @property
    def max_seq_length(self) -> int:
        """Tokens that the model sees at a time, special tokens and prompt included. Settable, up to its positions.

        Where tasks have transformers of their own, it is the most that one of them sees; set, it holds for all of them.
        """
        return max(pipeline.length(self._max_seq_length) for pipeline in self._routing.pipelines)

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        most = max(pipeline.positions for pipeline in self._routing.pipelines)
        if not is_count(value, 1) or value > most:
            raise InputError(f"max_seq_length is {value!r}, expected an integer from 1 to {most}")
        for pipeline in self._routing.pipelines:
            pipeline.capacity(0, pipeline.length(value))
        self._max_seq_length = int(value)

    @property
    def similarity_fn_name(self) -> SimilarityName:
        """What `similarity` computes: "cosine", "dot", "euclidean" or "manhattan". Settable."""
        return self._similarity_fn_name

    @similarity_fn_name.setter
    def similarity_fn_name(self, value: SimilarityName) -> None:
        self._similarity_fn_name = one_of(value, SIMILARITIES, "similarity_fn_name")

    @property
    def folders(self) -> tuple[Path, ...]:
        """The model's folder; and of one that holds an adapter alone, the folder of the model that it is for."""
        bases = (recipe.files.weights for recipe in self._routing.recipes.all)
        return tuple(dict.fromkeys((self._folder, *(base for base in bases if not base.is_relative_to(self._folder)))))

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that the checkpoint tells apart, by a Router or by adaptations of its weights; most have none."""
        return tuple(task for task in self._routing.recipes.tasks if task is not None)

    @property
    def document_task(self) -> str | None:
        """The task of documents, "document" where the checkpoint knows it."""
        return "document" if "document" in self.tasks else None

    @property
    def tokenizer(self) -> tokenizers.Tokenizer:
        """The checkpoint's tokenizer, of the tokenizers library, without truncation and padding.

        Where tasks have their own, it is that of a call without a task, else the first.
        """
        return self._pipeline.tokenizer.raw

    def get_embedding_dimension(self) -> int:
        """The dimension of the vectors that `encode` returns by default."""
        return self._defaults.dimension(None)

    def get_sentence_embedding_dimension(self) -> int:
        """The older name of `get_embedding_dimension`."""
        return self.get_embedding_dimension()

    def plan(self, tokens: int = 32768) -> Plan:
        """How `encode_chunks` would run one document of so many tokens, and the memory at its peak; nothing runs.

        Raises:
            InputError: `tokens` is no count, or the encoder does not use the C++ executor.
        """
        from .plan import plan_document

        defaults = self._defaults_of_documents(None)
        pipeline, length = defaults.pipeline, defaults.pipeline.length(self._max_seq_length)
        return plan_document(pipeline, tokens, length, defaults.dimension(None), pipeline.unit)

    # --- saving --------------------------------------------------------------------------------------------------

    def save(self, path: PathLike) -> None:
        """Write a model folder that `Encoder` and sentence-transformers load, with what this encoder is set to.

        Where this encoder's weights are "bfloat16" or "int8", they are written as its CPU kernels read them, and mapped
        when the folder is loaded: nothing is left to convert then. Such a folder is smaller, has that format only, and
        is for Longspan on the CPU alone; its README.md says so.

        An adapter is merged: the folder is that of a model of its own, with all weights. `layers`, `tap` and `extend`
        are choices that the new folder remembers and other arguments outweigh; sentence-transformers passes over them,
        so that its vectors are others, as README.md says then.

        Other files of the checkpoint are copied. Prompts, similarity, `truncate_dim` and `max_seq_length` go where
        sentence-transformers keeps them, and so do `dense`, `pooling` and `include_prompt`, though it refuses a pooling
        that it does not know; `long_text` and the ranges of `calibrate` go into longspan.json.

        Args:
            path: a folder that does not exist yet, or is empty. It appears once it is whole.

        Raises:
            InputError: there is something at `path`, or what was set is not usable.
            OSError: a file cannot be read or written, as on a full disk; nothing is left behind.
        """
        from .checkpoint.saving import SavedModel, save_model
        from .packing import new_weights

        self._check()
        routing, width = self._routing, self._pipeline.body.output.width
        lengths = tuple(pipeline.length(self._max_seq_length) for pipeline in routing.pipelines)
        model = SavedModel(
            source=self._folder,
            recipes=routing.recipes,
            choices=self._choices,
            lengths=lengths,
            width=width,
            settings=self._settings,
            inside=self._inside,
            weights=new_weights(routing.pipelines, self._changes),
        )
        save_model(model, Path(path))

    # --- vectors to scores ---------------------------------------------------------------------------------------

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Float32:
        """Scores of every vector of the first with every one of the second: float32 [n, m], larger is closer."""
        return similarity(embeddings1, embeddings2, self.similarity_fn_name)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Float32:
        """Scores of vectors that stand at the same place: float32 [n]."""
        return similarity_pairwise(embeddings1, embeddings2, self.similarity_fn_name)

    # --- settings ------------------------------------------------------------------------------------------------

    @property
    def _settings(self) -> Settings:
        names = (field.name for field in fields(Settings) if field.name != "max_seq_length")
        return Settings(max_seq_length=self._max_seq_length, **{name: getattr(self, name) for name in names})

    def _set(self, settings: Settings) -> None:
        for field in fields(Settings):
            value = getattr(settings, field.name)
            if field.name != "max_seq_length" or value is not None:
                setattr(self, field.name, value)
        self._check()

    def _check(self) -> None:
        for pipeline in self._routing.pipelines:
            Defaults(self._settings, pipeline).check()

    @property
    def _pipeline(self) -> Pipeline:
        return self._routing.main

    @property
    def _defaults(self) -> Defaults:
        return Defaults(self._settings, self._pipeline)

    def _defaults_of(self, task: str | None) -> Defaults:
        return Defaults(self._settings, self._routing.of(task))

    def _defaults_of_documents(self, task: str | None) -> Defaults:
        return self._defaults_of(self.document_task if task is None else task)
