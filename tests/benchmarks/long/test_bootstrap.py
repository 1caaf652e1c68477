"""The intervals of chance."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.long.bootstrap import intervals


def test_agrees_with_the_normal_interval() -> None:
    differences = np.random.default_rng(1).normal((0.3, -1), (0.5, 2), size=(400, 2))
    found = intervals(differences, np.arange(400), seed=0)
    half = 1.96 * differences.std(axis=0, ddof=1) / np.sqrt(400)
    expected = np.stack([differences.mean(axis=0) - half, differences.mean(axis=0) + half], axis=1)
    assert found == pytest.approx(expected, abs=0.1 * half.max())
    assert np.array_equal(found, intervals(differences, np.arange(400), seed=0))
    assert not np.array_equal(found, intervals(differences, np.arange(400), seed=1))


def test_no_difference_has_no_width() -> None:
    assert intervals(np.zeros((9, 1)), np.arange(9), seed=0).tolist() == [[0, 0]]


def test_questions_that_go_together_tell_less() -> None:
    of_groups = np.random.default_rng(2).normal(size=20)
    differences = np.repeat(of_groups, 10)[:, None]
    ((low, high),) = intervals(differences, np.repeat(np.arange(0, 40, 2), 10), seed=0)
    ((alone_low, alone_high),) = intervals(differences, np.arange(200), seed=0)
    ((once_low, once_high),) = intervals(of_groups[:, None], np.arange(20), seed=0)
    assert high - low == pytest.approx(once_high - once_low, rel=1e-6)
    assert high - low > 2 * (alone_high - alone_low)


def test_larger_groups_weigh_more() -> None:
    differences = np.array([1.0] * 9 + [0.0])[:, None]
    ((low, high),) = intervals(differences, np.array([0] * 9 + [1]), seed=0)
    assert (low, high) == (0, 1)
    ((low, high),) = intervals(differences, np.array([0] * 9 + [1]), seed=0, resamples=1)
    assert low in (0, pytest.approx(0.9), 1)
