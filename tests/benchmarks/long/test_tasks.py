"""What chunk vectors are worth: cases worked out by hand, with vectors that say which chunk is found."""

from __future__ import annotations

import math

import numpy as np
import pytest
from benchmarks.long import chunked, tasks
from benchmarks.long.data import Question, merged
from hypothesis import given
from hypothesis import strategies as st

pairs = st.tuples(st.integers(0, 30), st.integers(1, 10)).map(lambda pair: (pair[0], sum(pair)))


@given(st.lists(pairs, min_size=1, max_size=6), st.lists(pairs, max_size=6).map(merged))
def test_held_counts_common_places(chunks: list[tuple[int, int]], spans: tuple[tuple[int, int], ...]) -> None:
    starts, ends = np.array(chunks).T
    expected = [len(set(range(*chunk)) & {i for span in spans for i in range(*span)}) for chunk in chunks]
    assert tasks.held(starts, ends, spans).tolist() == expected


# Two documents: chunks [0, 10), [10, 30) of the first, and [0, 20), [20, 25) of the second.
CUT = chunked.Cut(np.array([0, 10, 0, 20]), np.array([10, 30, 20, 25]), np.array([0, 2, 4]))
CHUNKS = np.eye(4, dtype=np.float32)


def towards(*order: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """One question's vector that finds the chunks in this order."""
    row = np.zeros(4, dtype=np.float32)
    for place, chunk in enumerate(order):
        row[chunk] = 1 - 0.1 * place
    return row[None]


def measured(task: tasks.Task, questions: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> dict[str, float]:
    (row,) = task.measure(CUT, CHUNKS, questions)
    return dict(zip(task.measures, row.tolist(), strict=True))


def test_spans_within_a_document() -> None:
    # 4 characters of the answer lie in chunk 0, 12 in chunk 1; the other document is not searched.
    task = tasks.SpanTask("name", (Question("?", 0, ((6, 10), (18, 30))),), within=True)
    found = measured(task, towards(2, 3, 0, 1))
    assert found["recall@1"] == pytest.approx(4 / 16)
    assert found["recall@5"] == found["recall@10"] == 1
    assert found["precision@5"] == pytest.approx(16 / 30)
    assert found["IoU@5"] == pytest.approx(16 / 30)
    best = 12 + 4 / math.log2(3)
    assert found["nDCG@10"] == pytest.approx((4 + 12 / math.log2(3)) / best)


def test_spans_among_all_documents() -> None:
    task = tasks.SpanTask("name", (Question("?", 1, ((20, 24),)),), within=False)
    found = measured(task, towards(1, 3, 0, 2))
    assert found["recall@1"] == 0
    assert found["recall@5"] == 1
    assert found["nDCG@10"] == pytest.approx(1 / math.log2(3))
    assert found["IoU@5"] == pytest.approx(4 / 55)
    assert measured(task, towards(3, 0, 1, 2))["recall@1"] == 1


def test_answers_between_chunks_count_as_missed() -> None:
    task = tasks.SpanTask("name", (Question("?", 1, ((24, 28),)),), within=True)
    found = measured(task, towards(3, 2, 1, 0))
    assert found["recall@10"] == pytest.approx(1 / 4)
    assert found["IoU@5"] == pytest.approx(1 / 28)  # 25 characters shown, 3 of the answer besides


def test_questions_about_one_contract_belong_together() -> None:
    asked = (Question("a", 4, ((0, 1),)), Question("b", 4, ((0, 1),)), Question("c", 7, ((0, 1),)))
    assert tasks.SpanTask("name", asked, within=True).groups.tolist() == [4, 4, 7]
    assert len(set(tasks.SpanTask("name", asked, within=False).groups.tolist())) == 3


def test_a_document_is_as_good_as_its_best_chunk() -> None:
    cut = chunked.Cut(np.zeros(3, np.int64), np.ones(3, np.int64), np.array([0, 2, 2, 3]))  # the second has no chunk
    chunks = np.array([(1, 0), (0, 1), (0.6, 0.8)], dtype=np.float32)
    qrels = {"north": {"c": 1}, "east": {"a": 1}, "gone": {"b": 1}}
    task = tasks.DocumentTask("name", ("a", "b", "c"), dict.fromkeys(qrels, "?"), qrels)
    questions = np.array([(0, 1), (1, 0), (1, 0)], dtype=np.float32)
    ndcg, recall, rank = task.measure(cut, chunks, questions).T
    assert ndcg == pytest.approx([1 / math.log2(3), 1, 1 / 2])
    assert recall == pytest.approx([1, 1, 1])
    assert rank == pytest.approx([1 / 2, 1, 1 / 3])


def test_likeness_is_the_mean_over_pairs_and_documents() -> None:
    vectors = np.array([(1, 0), (0, 1), (1, 0), (1, 0), (1, 0)], dtype=np.float32)
    cut = chunked.Cut(np.zeros(5, np.int64), np.ones(5, np.int64), np.array([0, 3, 3, 5]))
    assert chunked.likeness(vectors, cut) == pytest.approx((1 / 3 + 1) / 2)


def test_blends_are_halfway() -> None:
    left, right = np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32)[::-1]
    assert chunked.blend(left, right) == pytest.approx(np.full((2, 2), math.sqrt(0.5)))
    cut = chunked.Cut(np.zeros(3, np.int64), np.ones(3, np.int64), np.array([0, 1, 3]))
    assert chunked.per_chunk(left, cut).tolist() == [[1, 0], [0, 1], [0, 1]]


def test_neighbours_are_of_the_same_document() -> None:
    cut = chunked.Cut(np.zeros(5, np.int64), np.ones(5, np.int64), np.array([0, 3, 3, 4, 5]))
    vectors = np.eye(5, dtype=np.float32)
    expected = np.zeros((5, 5))
    expected[0, 1] = expected[2, 1] = 1
    expected[1, 0] = expected[1, 2] = 0.5
    assert chunked.neighbours(vectors, cut) == pytest.approx(expected)
