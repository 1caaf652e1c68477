"""One group of documents to a shard, and all groups to a journal."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..encoder import Encoder
from ..errors import InputError, LongTextWarning, MemoryCeilingError
from ..results import DocumentEmbedding
from .inputs import Document, grouped
from .meter import Meter
from .shards import Journal, Shard

_PLACE = re.compile(r"(?:inputs|documents)\[(\d+)\]")  # how a message about one of them begins


@dataclass(frozen=True, slots=True)
class Way:
    """How documents become vectors.

    Attributes:
        levels: the chunk sizes; none for one vector per document.
        prompt_name, prompt, normalize, long_text: as in `Encoder`.
    """

    levels: tuple[int, ...]
    prompt_name: str | None
    prompt: str | None
    normalize: bool
    long_text: str


def embed_all(encoder: Encoder, way: Way, documents: Iterator[Document], journal: Journal, meter: Meter) -> None:
    """Append a shard for every group of documents that the journal does not have yet."""
    for number, group in enumerate(grouped(documents)):
        size = sum(document.size for document in group)
        if number < journal.count:
            meter.skip(size)
            continue
        meter.begin()
        shard = embed_group(encoder, way, group)
        journal.append(shard)
        meter.advance(size, *((len(group), "documents") if shard.tokens is None else (shard.tokens, "tokens")))


def embed_group(encoder: Encoder, way: Way, group: Sequence[Document]) -> Shard:
    """The group's shard.

    Raises:
        InputError: a document is not usable; the message names it.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            shard = _chunks(encoder, way, group) if way.levels else _texts(encoder, way, group, caught)
        except MemoryCeilingError:  # of no document by itself
            raise
        except InputError as error:
            place = _PLACE.match(str(error))
            raise InputError(group[int(place[1])].id + str(error)[place.end() :] if place else str(error)) from error
    for warning in caught:
        if not issubclass(warning.category, LongTextWarning):  # those are in the summary
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return shard


def _texts(encoder: Encoder, way: Way, group: Sequence[Document], caught: Sequence[warnings.WarningMessage]) -> Shard:
    """`caught` is what the encoder warns of meanwhile: it tells what is too long without counting what is cut."""
    texts = [document.text for document in group]
    counted = way.long_text != "truncate"  # else counting means to tokenise what is cut
    result = encoder.encode(
        texts,
        prompt_name=way.prompt_name,
        prompt=way.prompt,
        task=encoder.document_task,
        show_progress_bar=False,
        normalize_embeddings=way.normalize,
        return_usage=counted,
    )
    vectors, usages = result if counted else (result, [])
    return Shard(
        ids=[document.id for document in group],
        counts=np.ones((len(group), 1), np.int64),
        vectors=vectors,
        spans=np.zeros((0, 2), np.int64),
        long=sum(warning.message.texts for warning in caught if isinstance(warning.message, LongTextWarning)),
        tokens=sum(usage.n_tokens for usage in usages) if counted else None,
    )


def _chunks(encoder: Encoder, way: Way, group: Sequence[Document]) -> Shard:
    results: list[DocumentEmbedding] = encoder.encode_chunks(
        [document.text for document in group],
        chunk_tokens=way.levels,
        prompt_name=way.prompt_name,
        prompt=way.prompt,
        normalize_embeddings=way.normalize,
        long_text=way.long_text,
        show_progress_bar=False,
    )
    cuts = [[result.levels[size] for size in way.levels] for result in results]
    chunks = [level for levels in cuts for level in levels]
    width = encoder.get_embedding_dimension()
    return Shard(
        ids=[document.id for document in group],
        counts=np.array([[len(level) for level in levels] for levels in cuts], np.int64),
        vectors=np.concatenate([np.zeros((0, width), np.float32), *(level.vectors for level in chunks)]),
        spans=np.array([span for level in chunks for span in level.spans], np.int64).reshape(-1, 2),
        long=sum(result.cut or len(result.windows) > 1 for result in results),
        tokens=None if way.long_text == "truncate" else sum(result.n_tokens for result in results),
    )
