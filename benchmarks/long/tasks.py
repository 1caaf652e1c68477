"""What is asked of chunk vectors, and how the answers are measured: spans to be found, or documents to be found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from .. import metrics
from ..quality import QUERIES_AT_ONCE, query_measures
from .chunked import Cut, Float32, Int64
from .data import Question

DEPTH = 10
CUTS = (1, 5, 10)  # recall is measured in so many chunks
TOP = 5  # precision and IoU in so many, as in Chroma's report

Measures = NDArray[np.float64]


class Task(Protocol):
    """Questions, and what a method's answers to them are worth."""

    @property
    def name(self) -> str:
        """For tables and files."""

    @property
    def measures(self) -> Sequence[str]:
        """The names of the columns that `measure` gives."""

    @property
    def shown(self) -> Sequence[str]:
        """Those of them that a table has room for."""

    @property
    def questions(self) -> list[str]:
        """The texts to embed."""

    @property
    def groups(self) -> Int64:
        """[questions]; those of one group are not independent of each other."""

    def measure(self, cut: Cut, chunks: Float32, questions: Float32) -> Measures:
        """[questions, measures], each from 0 to 1, by the unit vectors of chunks and questions."""


@dataclass(frozen=True)
class SpanTask:
    """Finds the chunks that hold an answer: among those of its document (`within`), or of all documents.

    The gain of a chunk is the number of the answer's characters in it. Recall is the share of the answer's characters
    in the best k chunks, precision the share of those chunks that is answer, IoU the answer's characters found over
    those of answer and chunks together. Chunks must not overlap.
    """

    name: str
    asked: tuple[Question, ...]
    within: bool
    measures: ClassVar[Sequence[str]] = (
        f"nDCG@{DEPTH}",
        *(f"recall@{k}" for k in CUTS),
        f"precision@{TOP}",
        f"IoU@{TOP}",
    )
    shown: ClassVar[Sequence[str]] = (f"nDCG@{DEPTH}", f"recall@{TOP}", f"IoU@{TOP}")

    @property
    def questions(self) -> list[str]:
        return [question.text for question in self.asked]

    @property
    def groups(self) -> Int64:
        """Contracts where each has its questions; among all documents every question stands for itself."""
        if self.within:
            return np.array([question.document for question in self.asked], dtype=np.int64)
        return np.arange(len(self.asked))

    def measure(self, cut: Cut, chunks: Float32, questions: Float32) -> Measures:
        names = [str(place) for place in range(len(chunks))]
        rows = []
        for question, scores in zip(self.asked, _scores(questions, chunks), strict=True):
            own = slice(int(cut.first[question.document]), int(cut.first[question.document + 1]))
            searched = own if self.within else slice(0, len(chunks))
            best = metrics.rank(scores[searched], names[searched], DEPTH)
            rows.append(_span_measures(cut, best, own, question.spans))
        return np.array(rows)


@dataclass(frozen=True)
class DocumentTask:
    """Finds documents: the score of one is that of its best chunk. Measured as `python -m benchmarks quality` does."""

    name: str
    document_ids: tuple[str, ...]
    asked: Mapping[str, str]  # query id -> text
    qrels: Mapping[str, Mapping[str, int]]
    measures: ClassVar[Sequence[str]] = ("nDCG@10", "recall@100", "MRR@10")
    shown: ClassVar[Sequence[str]] = ("nDCG@10", "recall@100")

    @property
    def questions(self) -> list[str]:
        return list(self.asked.values())

    @property
    def groups(self) -> Int64:
        return np.arange(len(self.asked))

    def measure(self, cut: Cut, chunks: Float32, questions: Float32) -> Measures:
        filled = np.flatnonzero(np.diff(cut.first))  # a document without text has no chunk
        best = np.full((len(questions), len(self.document_ids)), -np.inf, dtype=np.float32)
        for row, scores in zip(best, _scores(questions, chunks), strict=True):
            row[filled] = np.maximum.reduceat(scores, cut.first[filled])
        return np.array(query_measures(best, list(self.asked), self.document_ids, self.qrels))


def held(starts: Int64, ends: Int64, spans: Sequence[tuple[int, int]]) -> Int64:
    """[M]: how many code points of disjoint `spans` each of the chunks [starts, ends) holds."""
    total = np.zeros(len(starts), dtype=np.int64)
    for start, end in spans:
        total += np.maximum(np.minimum(ends, end) - np.maximum(starts, start), 0)
    return total


def _scores(questions: Float32, chunks: Float32) -> Iterator[Float32]:
    """A row of scores [M] per question."""
    for first in range(0, len(questions), QUERIES_AT_ONCE):
        yield from questions[first : first + QUERIES_AT_ONCE] @ chunks.T


def _span_measures(cut: Cut, best: Sequence[str], own: slice, spans: Sequence[tuple[int, int]]) -> list[float]:
    """The measures of one question, from the numbers of the best chunks and the answer's own document's chunks."""
    gains = {
        str(own.start + place): int(gain)
        for place, gain in enumerate(held(cut.starts[own], cut.ends[own], spans).tolist())
        if gain
    }
    answer = sum(end - start for start, end in spans)
    found = {k: sum(gains.get(name, 0) for name in best[:k]) for k in {*CUTS, TOP}}
    shown = sum(int(cut.ends[place] - cut.starts[place]) for place in map(int, best[:TOP]))
    return [
        metrics.ndcg(best, gains, DEPTH),
        *(found[k] / answer for k in CUTS),
        found[TOP] / shown if shown else 0.0,
        found[TOP] / (answer + shown - found[TOP]),
    ]
