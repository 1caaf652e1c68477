"""What a run of `longspan embed` has done, in numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .shards import Shard
from .skipped import Skipped


@dataclass(frozen=True, slots=True)
class Totals:
    """Of all documents, also those that earlier runs embedded.

    Attributes:
        documents, vectors: how many.
        tokens: of the documents, without prompts and overlap; None where they were not counted.
        long_documents: how many are longer than the model's maximum, and so were cut or seen in windows.
        skipped: how many broken records were passed over.
        skipped_records: the first of these, each with its place and what is wrong with it.
    """

    documents: int
    vectors: int
    tokens: int | None
    long_documents: int
    skipped: int
    skipped_records: Sequence[str]

    @classmethod
    def of(cls, shards: Iterable[Shard], skipped: Skipped) -> Totals:
        """Of shards, whose vectors are not looked at."""
        documents, vectors, tokens, long, uncounted = 0, 0, 0, 0, False
        for shard in shards:
            documents += len(shard.ids)
            vectors += int(shard.counts.sum())
            long += shard.long
            tokens += shard.tokens or 0
            uncounted = uncounted or shard.tokens is None
        return cls(documents, vectors, None if uncounted else tokens, long, skipped.count, tuple(skipped.named))
