"""The public face: an embedding model, loaded, with sentence-transformers' names and argument order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from .backbone import Changes
from .byte_sizes import parse_size
from .checkpoint.choices import Choices
from .checkpoint.extras import Inside, read_extras
from .checkpoint.folder import resolve
from .checkpoint.recipe import SimilarityName
from .checkpoint.settings import Settings
from .chunk_plan import ChunkOptions, Joiner, as_list, plan_chunks, plan_stream
from .defaults import DOCUMENT_PROMPTS, initial_settings
from .encoding import embed_chunks, embed_texts, embed_tokens
from .errors import InputError, InputTypeError
from .executors.choice import check_device, choose_executor
from .loaded import LoadedModel, PathLike
from .long_texts import LongTexts, warn_long_texts
from .models.extend import Method
from .options import Options
from .pipeline import Pipeline
from .pooling.precision import Precision, Ranges
from .results import DocumentEmbedding, converted
from .routing import Routing
from .streaming import stream
from .text.inputs import Spans, check_texts

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Encoder(LoadedModel):
    """A checkpoint that turns texts into vectors. Thread-safe and picklable.

    Args:
        model: a folder, or a Hugging Face hub id. Both sentence-transformers folders and plain ones, and those of LoRAs
            alone, which name the model that they are merged into.
        device: "cpu", "cuda", or None for a GPU where torch finds one.
        weights: the format that the model's matrices are held and multiplied in. "auto" is the folder's own, never
            lossier: what `save` wrote them in, else float32.
        long_text: what becomes of texts longer than `max_seq_length`: "window" embeds them in overlapping windows and
            pools across, "truncate" cuts them as sentence-transformers does, "error" raises. By default what the folder
            was saved with, else "window".
        adapter: the folder of a LoRA in PEFT's files, merged into the weights.
        layers: runs the first so many layers, then the model's last norm (2D Matryoshka).
        tap: takes the token vectors from one layer, 0 for the embedding and negative from the end, without the last
            norm.
        dense: the folder of the Dense module, such as "2_Dense_256", where the checkpoint holds several to choose from.
        pooling: how token vectors become one vector, instead of what the checkpoint says: "cls", "mean", "max",
            "mean_sqrt_len_tokens", "weightedmean", "lasttoken", "lasttoken:8" for the mean of the last 8 tokens,
            "token:[MASK]" for the mean of the tokens that are [MASK]; several are concatenated. A plain folder with a
            chat template needs it said: texts are then taken as they are, without the template.
        include_prompt: whether the prompt's tokens are pooled too, instead of what the checkpoint says.
        truncate_dim: keeps the leading components of each vector (Matryoshka); by default the checkpoint's choice.
        prompts: name → text, put before the texts of a call; added to the checkpoint's own.
        default_prompt_name: the prompt of calls that name none.
        similarity_fn_name: "cosine", "dot", "euclidean" or "manhattan"; by default the checkpoint's, else cosine.
        threads: how many CPU threads run the model; by default one per physical core that the process may use. Texts
            are tokenised beside them, by the tokenizers library's own threads on all cores; but with 1 by the caller's,
            one text after another, and not while the model runs.
        memory: a ceiling on what this process ever has resident (VmHWM), in bytes or as "2GiB"; no bit of a vector
            depends on it. What does not fit of the weights is read from the disk layer by layer, for many texts at a
            time: from the model folder where `save` wrote them as "bfloat16" or "int8", else from a temporary file.
            `plan` shows what becomes of it.
        extend: how the model meets positions beyond the checkpoint's, without training (LongEmbed, arXiv 2404.12096):
            "grouped", "recurrent" or "interpolate" where positions are learned, "ntk", "interpolate" or "self_extend"
            where they are rotary. Texts that the checkpoint has positions for keep their vectors, but not with rotary
            "ntk" and "interpolate".
        max_seq_length: tokens that the model sees at a time; by default the checkpoint's. With `extend`, what positions
            are extended to; by default eight times as many as there are.
        backend: None for the fastest executor of the device, "reference" for plain torch, "transformers" for a model
            that transformers runs and Longspan does not know.
        revision, cache_folder, local_files_only, token: as in huggingface_hub, for hub ids.

    Attributes:
        device: where it computes.
        max_seq_length, truncate_dim, long_text, prompts, default_prompt_name, similarity_fn_name: as above. Settable.
        ranges: of int8 and uint8 vectors, by their dimension; see `calibrate`. Settable.

    Raises:
        CheckpointError: the folder is missing, incomplete, damaged or not supported.
        InputError: an option is not usable.
        MemoryCeilingError: not even a text of one token fits below the ceiling, or the process has passed it already.
            Calls raise it for a text that does not fit. It says what would.
    """

    def __init__(
        self,
        model: PathLike,
        *,
        device: str | None = None,
        weights: Literal["auto", "float32", "bfloat16", "int8"] = "auto",
        long_text: str | None = None,
        adapter: PathLike | None = None,
        layers: int | None = None,
        tap: int | None = None,
        dense: str | None = None,
        pooling: str | Sequence[str] | None = None,
        include_prompt: bool | None = None,
        truncate_dim: int | None = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        similarity_fn_name: SimilarityName | None = None,
        threads: int | None = None,
        memory: int | str | None = None,
        extend: Method | None = None,
        max_seq_length: int | None = None,
        backend: Literal["reference", "transformers"] | None = None,
        revision: str | None = None,
        cache_folder: PathLike | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> None:
        if not isinstance(model, str | os.PathLike):
            raise InputTypeError(f"model is {type(model).__name__}, expected a path or a hub id")
        self._arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        self.device, make_executor = choose_executor(
            device, weights, backend, threads, None if memory is None else parse_size(memory)
        )
        find = partial(_find, cache_folder, local_files_only, token)
        self._folder = find(model, revision).absolute()
        extras = read_extras(self._folder)
        merged, given = None if adapter is None else Path(adapter), Inside(layers, tap, extend, max_seq_length)
        self._inside = given.over(extras.inside)
        self._changes = Changes.of(given, extras, merged, foreign=backend == "transformers")
        self._choices = Choices.of(model, dense, pooling, include_prompt)
        self._arguments["include_prompt"] = self._choices.include_prompt  # which the folder's path alone may not tell
        self._routing = Routing.load(
            self._folder, make_executor, self._changes, self._choices, find, serial=threads == 1
        )
        self._set(initial_settings(extras, self._routing.recipes.main, self._arguments))

    def __repr__(self) -> str:
        return (
            f"Encoder({str(self._arguments['model'])!r}, dimension={self.get_embedding_dimension()}, "
            f"max_seq_length={self.max_seq_length}, device={self.device!r})"
        )

    def __reduce__(self) -> tuple[Callable[..., Encoder], tuple[Any, ...]]:
        # The folder as it was found: another process may have another working directory, and needs no token.
        arguments = {**self._arguments, "model": str(self._folder), "revision": None, "token": None}
        return _rebuild, (arguments, self._settings)

    # --- texts to vectors ----------------------------------------------------------------------------------------

    def encode(
        self,
        inputs: str | Sequence[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        output_value: Literal["sentence_embedding", "token_embeddings"] = "sentence_embedding",
        precision: Precision = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        *,
        task: str | None = None,
        return_usage: bool = False,
    ) -> Any:
        """Embed texts.

        Args:
            inputs: one text or a list of texts, of any length.
            prompt_name: the name of a prompt to put before every text; by default the task's, where the checkpoint has
                an adaptation for it, else `default_prompt_name`.
            prompt: the prompt itself, instead of a name.
            batch_size: accepted for compatibility; texts are packed by tokens, so there is nothing to choose.
            show_progress_bar: by default only where the logger "longspan" is at INFO.
            output_value: "token_embeddings" gives a list of [n_i, D] matrices, special tokens included.
            precision: "int8" and "uint8" need `calibrate` first, unless the checkpoint's vectors are such integers
                already (pplx-embed); "binary" and "ubinary" pack one bit per component.
            convert_to_numpy: False gives a list of torch tensors.
            convert_to_tensor: gives one torch tensor instead of a numpy array.
            device: accepted for compatibility; must be the encoder's own.
            normalize_embeddings: makes vectors unit length even if the checkpoint does not.
            truncate_dim: keeps the leading components. A cut vector is made unit length again where the checkpoint ends
                in Normalize or `normalize_embeddings` asks for it.
            task: which route the texts take where the checkpoint has a Router, such as "query" or "document"; by
                default the one that it names for this. Where the checkpoint has low-rank adaptations for tasks (Jina
                v3), which of them is added to its weights, such as "text-matching"; by default none. Other
                checkpoints know no difference.
            return_usage: also return one `Usage` per text.

        Returns:
            float32 [n, d] for a list, [d] for one text; with `return_usage` a pair of that and the usages.

        Raises:
            InputError: an input or an option is not usable; the message names it.
        """
        check_device(device, self.device)
        texts, single = as_list(inputs)
        defaults = self._defaults_of(task)
        options = defaults.options(
            defaults.prompt(prompt_name, prompt),
            self.long_text,
            truncate_dim,
            normalize_embeddings,
            precision,
            show_progress=show_progress_bar,
            count_tokens=return_usage,
        )
        result: Any
        if output_value == "sentence_embedding":
            result, usages = embed_texts(defaults.pipeline, texts, options)
        elif output_value == "token_embeddings":
            result, usages = embed_tokens(defaults.pipeline, texts, options)
        else:
            raise InputError(f"output_value is {output_value!r}, expected 'sentence_embedding' or 'token_embeddings'")
        warn_long_texts(LongTexts().add(usages), options)
        result = converted(result, to_tensor=convert_to_tensor, to_numpy=convert_to_numpy)
        if single:
            return (result[0], usages[0]) if return_usage else result[0]
        return (result, usages) if return_usage else result

    def encode_query(
        self,
        inputs: str | Sequence[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """`encode` for the task "query", with the prompt named "query" unless another is asked for.

        Where the checkpoint has an adaptation for "retrieval.query", it is that task, with its prompt.
        """
        name = self._defaults_of("query").prompt_name(("query",), prompt_name, prompt)
        return self.encode(inputs, name, prompt, *args, task="query", **kwargs)

    def encode_document(
        self,
        inputs: str | Sequence[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """`encode` for the task "document", with the first prompt of "document", "passage" and "corpus" that there is.

        Another prompt may be asked for. Where the checkpoint has an adaptation for "retrieval.passage", it is that
        task, with its prompt.
        """
        name = self._defaults_of("document").prompt_name(DOCUMENT_PROMPTS, prompt_name, prompt)
        return self.encode(inputs, name, prompt, *args, task="document", **kwargs)

    @overload
    def encode_chunks(  # type: ignore[overload-overlap]  # a str is also a Sequence[str]; the first match counts
        self, documents: str, **options: Unpack[ChunkOptions]
    ) -> DocumentEmbedding: ...

    @overload
    def encode_chunks(
        self, documents: Sequence[str] | Sequence[Sequence[str]], **options: Unpack[ChunkOptions]
    ) -> list[DocumentEmbedding]: ...

    def encode_chunks(
        self,
        documents: str | Sequence[str] | Sequence[Sequence[str]],
        *,
        chunk_tokens: int | Sequence[int] = 256,
        spans: Spans | Sequence[Spans] | None = None,
        splitter: Any = None,
        joiner: str | None = None,
        chunk_overlap: int = 0,
        window_overlap: int | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        task: str | None = None,
        precision: Precision = "float32",
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        long_text: str = "window",
        show_progress_bar: bool | None = None,
    ) -> DocumentEmbedding | list[DocumentEmbedding]:
        """Embed each document in one pass, and pool every chunk from token vectors that know the whole window.

        What the chunks are is said by one of `chunk_tokens`, `spans`, `splitter`, or the documents themselves.

        Args:
            documents: one document or a list of documents, of any length. A document may be given as a list of its
                chunks, which are joined by `joiner`.
            chunk_tokens: the most tokens of a chunk; chunks end at sentence or word boundaries near it. Several sizes,
                such as (128, 512), give several levels from one pass.
            spans: the chunks as (start, end) pairs of code points; for a list of documents, such a list per document.
                They may overlap.
            splitter: a callable from a text to its pieces (strings, pairs of code points, or Chonkie's chunks), or an
                object with `split_text` (LangChain's splitters). Its words have to be the text's: whitespace may
                differ, letters (lower case, a tokenizer's own spelling) may not. Pieces without a token are left out.
            joiner: the text between the chunks of a document that is given as a list of chunks; by default the
                checkpoint's separator token if it declares one, which belongs to no chunk, else a space.
            chunk_overlap: how many tokens a chunk repeats from the one before, at most; with `chunk_tokens`.
            window_overlap: tokens that neighbouring windows share where a document is longer than the model's maximum;
                by default a quarter of a window. Each token counts in the window where it has most context.
            prompt_name, prompt: as for `encode_document`. A chunk never pools the prompt.
            task: as for `encode`; by default "document" where the checkpoint knows it.
            precision, normalize_embeddings, truncate_dim, show_progress_bar: as for `encode`.
            long_text: what becomes of documents longer than the model's maximum.

        Returns:
            A `DocumentEmbedding`, or a list of them for a list of documents.

        Raises:
            InputError: a document, a span or an option is not usable; the message names it.
        """
        defaults = self._defaults_of_documents(task)
        between = Joiner(joiner, defaults.pipeline.separator)
        plan = plan_chunks(documents, chunk_tokens, spans, splitter, chunk_overlap, between)
        options = defaults.options(
            defaults.prompt(defaults.prompt_name(DOCUMENT_PROMPTS, prompt_name, prompt), prompt),
            long_text,
            truncate_dim,
            normalize_embeddings,
            precision,
            show_progress=show_progress_bar,
            window_overlap=window_overlap,
            what="documents",
        )
        results, usages = embed_chunks(defaults.pipeline, plan.inputs, options, plan.chunker, plan.sizes)
        warn_long_texts(LongTexts().add(usages), options)
        return results[0] if plan.single else results

    def stream(
        self,
        texts: Iterable[str] | Iterable[Sequence[str]],
        *,
        chunk_tokens: int | Sequence[int] | None = None,
        spans: Iterable[Spans] | None = None,
        splitter: Any = None,
        joiner: str | None = None,
        chunk_overlap: int = 0,
        window_overlap: int | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        task: str | None = None,
        precision: Precision = "float32",
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> Iterator[Any]:
        """Embed texts as they come, in bounded memory: the iterable is read as vectors are taken, in the same thread.

        The first text is embedded at once, then larger and larger groups, up to some seconds of work; after a text that
        was slow to come, one at a time again. What a group holds leaves when the iterable has given all of it: one that
        waits for the vectors of what it gave, as in a dialogue, wants `encode`.

        Args:
            texts: any iterable, however long; generators are read lazily. Documents may be lists of their chunks.
            chunk_tokens, splitter, joiner, chunk_overlap, window_overlap: as for `encode_chunks`; with one of the first
                two, each text is a document and its chunks are embedded.
            spans: the chunks of each document, as an iterable that is read beside `texts`.
            prompt_name, prompt, precision, normalize_embeddings, truncate_dim: as for `encode`, or `encode_chunks`.
            task: as for `encode`, or `encode_chunks`.

        Yields:
            One vector [d] per text, in order. With a chunking, a `StreamedChunk` (document, chunk, span, vector) for
            each chunk; with several sizes, a `SizedChunk`, which has the `size` too, level by level.

        Raises:
            InputError: an option is not usable, at once; or a text is not, after the vectors of all texts before it.
        """
        documents = self._defaults_of_documents(task)
        between = Joiner(joiner, documents.pipeline.separator)
        plan = plan_stream(texts, chunk_tokens, spans, splitter, chunk_overlap, between)

        def call(chunked: bool) -> tuple[Pipeline, Options]:
            defaults = documents if chunked else self._defaults_of(task)
            name = defaults.prompt_name(DOCUMENT_PROMPTS, prompt_name, prompt) if chunked else prompt_name
            return defaults.pipeline, defaults.options(
                defaults.prompt(name, prompt),
                self.long_text,
                truncate_dim,
                normalize_embeddings,
                precision,
                window_overlap=window_overlap,
                what="texts",
            )

        call(plan.chunker is not None)  # what is not usable is said at once
        return stream(plan, call)

    # --- calibration ---------------------------------------------------------------------------------------------

    def calibrate(
        self,
        texts: Sequence[str],
        *,
        truncate_dim: int | None = None,
        normalize_embeddings: bool = False,
        task: str | None = None,
    ) -> None:
        """Fix the ranges of int8 and uint8 vectors by texts like those to come; the ranges serve single texts too.

        Args:
            texts: at least two, better some hundreds.
            truncate_dim: the dimension to calibrate for, if calls will ask for another than the default.
            normalize_embeddings: whether calls will ask for unit length.
            task: as for `encode`.

        Raises:
            InputError: there are too few texts, or one has a vector that is not finite.
        """
        defaults = self._defaults_of(task)
        dimension = defaults.dimension(truncate_dim)
        vectors = self.encode(
            check_texts(texts, "texts"), truncate_dim=dimension, normalize_embeddings=normalize_embeddings, task=task
        )
        unit = bool(defaults.pipeline.unit or normalize_embeddings)
        self.ranges = {**self.ranges, dimension: Ranges.of(vectors, unit)}


def _find(cache: PathLike | None, local: bool, token: str | bool | None, model: PathLike, revision: str | None) -> Path:
    return resolve(model, revision=revision, cache_folder=cache, local_files_only=local, token=token)


def _rebuild(arguments: dict[str, Any], settings: Settings) -> Encoder:
    encoder = Encoder(**arguments)
    encoder._set(settings)
    return encoder
