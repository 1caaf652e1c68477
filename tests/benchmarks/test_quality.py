"""The retrieval measures against their formulas, on cases worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from benchmarks import beir, metrics, quality
from numpy.typing import NDArray


def test_ndcg_of_hand_made_rankings() -> None:
    gains = {"a": 2, "b": 1, "c": 0}
    best = 2 / math.log2(2) + 1 / math.log2(3)
    assert metrics.ndcg(["a", "b", "c"], gains, 10) == pytest.approx(1)
    assert metrics.ndcg(["b", "x", "a"], gains, 10) == pytest.approx((1 + 2 / math.log2(4)) / best)
    assert metrics.ndcg(["x", "y", "a"], gains, 2) == 0
    assert metrics.ndcg(["b", "a"], gains, 1) == pytest.approx(1 / 2)  # the ideal is cut at the depth too
    assert metrics.ndcg(["c"], {"c": 0}, 10) == 0


def test_recall_and_reciprocal_rank() -> None:
    gains = {"a": 1, "b": 3, "c": 0}
    assert metrics.recall(["x", "a", "b"], gains, 2) == pytest.approx(1 / 2)
    assert metrics.recall(["c"], gains, 10) == 0
    assert metrics.reciprocal_rank(["c", "x", "b"], gains, 10) == pytest.approx(1 / 3)
    assert metrics.reciprocal_rank(["c", "x", "b"], gains, 2) == 0


def test_equal_scores_go_by_descending_id_also_at_the_cut() -> None:
    scores = np.array([0.5, 0.9, 0.5, 0.5, 0.1], dtype=np.float32)
    assert metrics.rank(scores, ["a", "b", "c", "d", "e"], 3) == ["b", "d", "c"]
    assert metrics.rank(scores, ["a", "b", "c", "d", "e"], 99) == ["b", "d", "c", "a", "e"]


class Fixed:
    """Vectors from a table; what is measured is the search, not a model."""

    def __init__(self, table: dict[str, tuple[float, float]]) -> None:
        self._table = table

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.array([self._table[text] for text in texts], dtype=np.float32)

    encode_documents = encode_queries


DATA = beir.RetrievalSet({"1": "east", "2": "north", "3": "long east"}, {"q": "to the east", "2": "north"}, {})
TABLE = {"east": (1.0, 0.2), "north": (0.0, 1.0), "long east": (9.0, 0.0), "to the east": (1.0, 0.0)}


def test_evaluate_searches_by_cosine() -> None:
    data = beir.RetrievalSet(DATA.documents, DATA.queries, {"q": {"1": 1}, "2": {"2": 1}})
    result = quality.evaluate(Fixed(TABLE), data)
    # "long east" points exactly where the query does, so the judged document comes second; "north" finds itself.
    assert result.ndcg_at_10 == pytest.approx(100 * (1 / math.log2(3) + 1) / 2)
    assert result.mrr_at_10 == pytest.approx(100 * (1 / 2 + 1) / 2)
    assert result.recall_at_100 == pytest.approx(100)
    assert (result.queries, result.documents) == (2, 3)


def test_evaluate_can_leave_out_the_document_with_the_querys_id() -> None:
    data = beir.RetrievalSet(DATA.documents, {"2": "north"}, {"2": {"1": 1}})
    assert quality.evaluate(Fixed(TABLE), data).mrr_at_10 == pytest.approx(50)
    assert quality.evaluate(Fixed(TABLE), data, skip_same_id=True).mrr_at_10 == pytest.approx(100)
