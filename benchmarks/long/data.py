"""Documents with questions whose answers are spans of them: contracts (CUAD) and Chroma's chunking evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import beir
from ..beir import DataError


@dataclass(frozen=True)
class Question:
    """A question and where its answer is.

    Attributes:
        text: the question.
        document: the index of the one document that holds the answer.
        spans: the answer as [start, end) code points, ascending and disjoint.
    """

    text: str
    document: int
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Passages:
    """Documents, their titles ("" for none) and the questions about them."""

    documents: tuple[str, ...]
    titles: tuple[str, ...]
    questions: tuple[Question, ...]


def load_cuad(folder: Path) -> Passages:
    """Reads `docs.jsonl` and `queries.jsonl`. Titles are file names: their underscores become spaces."""
    records = list(beir.read_jsonl(_existing(folder, "docs.jsonl")))
    try:
        numbers = {str(record["_id"]): number for number, record in enumerate(records)}
        documents = tuple(str(record["text"]) for record in records)
    except KeyError as error:
        raise DataError(f"{folder}: a document lacks the field {error}") from error
    titles = tuple(" ".join(str(record.get("title") or "").replace("_", " ").split()) for record in records)
    return Passages(documents, titles, _questions(folder, numbers, documents))


def load_chunking_eval(folder: Path) -> Passages:
    """Reads `corpora/*.md`, each one document without a title, and `queries.jsonl`."""
    files = sorted(_existing(folder, "corpora").glob("*.md"))
    try:
        documents = tuple(file.read_bytes().decode("utf-8") for file in files)  # bytes: line ends stay, and spans fit
    except UnicodeDecodeError as error:
        raise DataError(f"{folder}: a corpus is not UTF-8 ({error})") from error
    numbers = {file.stem: number for number, file in enumerate(files)}
    return Passages(documents, ("",) * len(files), _questions(folder, numbers, documents))


def sample_passages(passages: Passages, count: int | None, seed: int) -> Passages:
    """`count` of the documents, drawn by `seed` and in their order, with the questions about them."""
    if count is None or count >= len(passages.documents):
        return passages
    chosen = sorted(np.random.default_rng(seed).choice(len(passages.documents), count, replace=False).tolist())
    places = {number: place for place, number in enumerate(chosen)}
    return Passages(
        documents=tuple(passages.documents[number] for number in chosen),
        titles=tuple(passages.titles[number] for number in chosen),
        questions=tuple(
            Question(question.text, places[question.document], question.spans)
            for question in passages.questions
            if question.document in places
        ),
    )


def sample_retrieval(data: beir.RetrievalSet, count: int | None, seed: int) -> beir.RetrievalSet:
    """`count` of the documents: all that a judgement names, and others drawn by `seed` up to that number."""
    if count is None or count >= len(data.documents):
        return data
    kept = {key for gains in data.qrels.values() for key in gains}
    others = [key for key in data.documents if key not in kept]
    more = min(max(count - len(kept), 0), len(others))
    kept.update(others[place] for place in np.random.default_rng(seed).choice(len(others), more, replace=False))
    documents = {key: text for key, text in data.documents.items() if key in kept}
    return beir.RetrievalSet(documents, data.queries, data.qrels, data.titles)


def merged(spans: Sequence[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    """The same code points as ascending, disjoint spans."""
    result: list[tuple[int, int]] = []
    for start, end in sorted((int(start), int(end)) for start, end in spans):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return tuple(result)


def _existing(folder: Path, name: str) -> Path:
    if not (folder / name).exists():
        raise DataError(f"{folder} does not hold such a set: {name} is missing")
    return folder / name


def _questions(folder: Path, numbers: dict[str, int], documents: Sequence[str]) -> tuple[Question, ...]:
    path = _existing(folder, "queries.jsonl")
    questions = tuple(_question(path, record, numbers, documents) for record in beir.read_jsonl(path))
    if not questions:
        raise DataError(f"{path}: no questions")
    return questions


def _question(path: Path, record: dict[str, Any], numbers: dict[str, int], documents: Sequence[str]) -> Question:
    try:
        name, text, document, spans = record["_id"], str(record["text"]), str(record["doc_id"]), record["spans"]
    except KeyError as error:
        raise DataError(f"{path}: a question lacks the field {error}") from error
    if document not in numbers:
        raise DataError(f"{path}: question {name!r} is about {document!r}, which is not among the documents")
    length = len(documents[numbers[document]])
    if not spans or not all(_inside(span, length) for span in spans):
        raise DataError(f"{path}: question {name!r} has spans that are not pairs inside its document: {spans}")
    return Question(text, numbers[document], merged(spans))


def _inside(span: Any, length: int) -> bool:
    pair = isinstance(span, list) and len(span) == 2 and all(isinstance(place, int) for place in span)
    return pair and 0 <= span[0] < span[1] <= length
