"""Windows partition a text, see what they own, and give each token its best context."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.errors import InputError
from longspan.text.windows import Window, count_windows, split_windows


@st.composite
def cases(draw: st.DrawFn) -> tuple[int, int, int]:
    capacity = draw(st.integers(1, 40))
    return draw(st.integers(0, 300)), capacity, draw(st.integers(0, capacity - 1))


@given(cases())
def test_owned_ranges_partition_the_text(case: tuple[int, int, int]) -> None:
    windows = split_windows(*case)
    assert windows[0].owned_start == 0
    assert windows[-1].owned_end == case[0]
    assert all(before.owned_end == after.owned_start for before, after in pairwise(windows))
    assert all(w.start <= w.owned_start <= w.owned_end <= w.end for w in windows)
    assert case[0] == 0 or all(w.owned_start < w.owned_end for w in windows)


@given(cases())
def test_windows_are_full_few_and_overlap(case: tuple[int, int, int]) -> None:
    tokens, capacity, overlap = case
    windows = split_windows(*case)
    assert all(w.end - w.start == min(tokens, capacity) for w in windows)
    assert all(before.end - after.start >= overlap for before, after in pairwise(windows))
    # One window fewer, with neighbours that share `overlap`, could not reach the end.
    reach = capacity + (len(windows) - 2) * (capacity - overlap)
    assert len(windows) == 1 or reach < tokens
    assert (len(windows) == 1) == (tokens <= capacity)
    assert count_windows(*case) == len(windows)


@given(cases())
def test_owner_has_most_context(case: tuple[int, int, int]) -> None:
    tokens = case[0]
    windows = split_windows(*case)

    def context(window: Window, token: int) -> int:
        left = tokens if window.start == 0 else token - window.start
        right = tokens if window.end == tokens else window.end - 1 - token
        return min(left, right)

    for window in windows:
        for token in range(window.owned_start, window.owned_end):
            assert context(window, token) == max(context(w, token) for w in windows if w.start <= token < w.end)


def test_examples() -> None:
    assert split_windows(0, 8, 2) == (Window(0, 0, 0, 0),)
    assert split_windows(8, 8, 2) == (Window(0, 8, 0, 8),)
    assert split_windows(9, 8, 2) == (Window(0, 8, 0, 4), Window(1, 9, 4, 9))
    assert split_windows(14, 8, 2) == (Window(0, 8, 0, 7), Window(6, 14, 7, 14))
    assert split_windows(3, 1, 0) == (Window(0, 1, 0, 1), Window(1, 2, 1, 2), Window(2, 3, 2, 3))


@pytest.mark.parametrize(("capacity", "overlap"), [(0, 0), (-1, 0), (8, 8), (8, 9), (8, -1), (1, 1)])
def test_errors(capacity: int, overlap: int) -> None:
    with pytest.raises(InputError, match="window"):
        split_windows(100, capacity, overlap)
