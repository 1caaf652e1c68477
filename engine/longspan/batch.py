"""The packed batch: the one thing that travels from the text side to the executors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Partials:
    """Which rows are pooled into which vector, for one kind of pooling.

    A partial is one contiguous, non-empty run of rows of one segment; a vector is the combination of one or more
    partials, so that a span may cross windows and a pooled set may have gaps. Row i of partial p has weight
    `first_weight[p] + i * weight_step[p]`: (1, 0) gives a mean, (k + 1, 1) position weights that start after k tokens.

    Attributes:
        starts, ends: [P] rows of the packed stream, half open; ordered so that a vector's partials are adjacent and in
            window order.
        first_weight, weight_step: [P].
        cu_vectors: [N + 1] partial offsets; vector n owns the partials cu_vectors[n] .. cu_vectors[n + 1]. An empty
            range is a zero vector.
    """

    starts: Int64
    ends: Int64
    first_weight: Float32
    weight_step: Float32
    cu_vectors: Int64

    @property
    def count(self) -> int:
        """The number of partials P."""
        return len(self.starts)

    @property
    def vectors(self) -> int:
        """The number of vectors N."""
        return len(self.cu_vectors) - 1


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Texts laid end to end, without padding.

    Attributes:
        ids: [T] token ids.
        positions: [T] position of each token within its segment, from 0; -1 for those that take none.
        cu_seqlens: [B + 1] segment offsets; a segment attends only to itself.
        partials: what to pool. The same ranges serve every `pool` instruction of a program whose `partials` index
            them; a program pools as many kinds as there are entries.
        task: which of its low-rank pairs a program adds to its weights; None for none.
    """

    ids: Int32
    positions: Int32
    cu_seqlens: Int64
    partials: tuple[Partials, ...]
    task: int | None = None

    @property
    def tokens(self) -> int:
        """The number of tokens T."""
        return len(self.ids)

    @property
    def segments(self) -> int:
        """The number of segments B."""
        return len(self.cu_seqlens) - 1
