"""A loaded model: what it is, and what is set of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING

from .checkpoint.recipe import SIMILARITIES, SimilarityName
from .checkpoint.settings import Settings
from .checks import is_count, one_of
from .defaults import Defaults
from .errors import InputError
from .pipeline import Pipeline
from .pooling.precision import Ranges
from .routing import Routing

if TYPE_CHECKING:
    import tokenizers

    from .plan import Plan


class LoadedModel:
    """The part of `Encoder` that its settings are in; what they mean is said there."""

    device: str
    truncate_dim: int | None
    long_text: str
    prompts: dict[str, str]
    default_prompt_name: str | None
    ranges: Mapping[int, Ranges]
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
