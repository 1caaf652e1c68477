"""The progress bar: shown when asked for, counted in tokens, and closed whatever happens."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from longspan import Encoder, InputError
from longspan.progress import LOGGER, Progress


class Bar:
    """Stands in for tqdm and remembers."""

    made: list[Bar]

    def __init__(self, total: int, **options: object) -> None:
        self.total, self.options = total, options
        self.n = 0
        self.steps: list[tuple[int, int]] = []
        self.closed = False
        Bar.made.append(self)

    def update(self, count: int) -> None:
        self.n += count
        self.steps.append((self.n, self.total))

    def refresh(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Bar]:
    module = ModuleType("tqdm.auto")
    module.tqdm = Bar  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tqdm.auto", module)
    Bar.made = []
    return Bar.made


@pytest.fixture
def verbose() -> Iterator[None]:
    level = LOGGER.level
    LOGGER.setLevel(logging.INFO)
    yield
    LOGGER.setLevel(level)


def test_silent_by_default(bars: list[Bar]) -> None:
    for shown in (None, False):
        with Progress(shown, 100) as progress:
            progress.begin(10, 100)
            progress.reach(5)
    assert bars == []


@pytest.mark.usefixtures("verbose")
def test_shown_where_the_logger_is_at_info(bars: list[Bar]) -> None:
    with Progress(None, 100):
        assert len(bars) == 1
    with Progress(False, 100):
        assert len(bars) == 1


def test_counts_over_slices(bars: list[Bar]) -> None:
    with Progress(True, 400) as progress:
        (bar,) = bars
        assert bar.total == 101  # a guess
        progress.begin(50, 100)
        assert bar.total == 200  # 300 characters are left, at half a token each
        progress.reach(20)
        progress.reach(50)
        progress.begin(30, 300)
        assert bar.total == 80  # nothing is left to guess
        progress.reach(10)
        progress.reach(10)
    assert [n for n, _ in bar.steps] == [20, 50, 60, 60, 80]
    assert bar.closed


def test_an_empty_call(bars: list[Bar]) -> None:
    with Progress(True, 0):
        pass
    with Progress(True, 0) as progress:
        progress.begin(2, 0)
    assert [bar.closed for bar in bars] == [True, True]
    assert bars[1].n == bars[1].total == 2


def test_an_error_closes_the_bar_where_it_stands(bars: list[Bar]) -> None:
    def work() -> None:
        with Progress(True, 100) as progress:
            progress.begin(50, 100)
            progress.reach(20)
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert (bars[0].n, bars[0].closed) == (20, True)


def test_encoder(minilm: Path, bars: list[Bar]) -> None:
    encoder = Encoder(minilm)
    encoder.encode(["two words", "one"])
    assert bars == []
    encoder.encode(["two words", "one"], show_progress_bar=True)
    encoder.encode_chunks("word " * 600, chunk_tokens=50, show_progress_bar=True)
    encoder.encode([], show_progress_bar=True)
    assert [bar.closed for bar in bars] == [True] * 3
    assert bars[0].n == bars[0].total == 7  # special tokens are work too
    assert bars[1].n == bars[1].total > 602
    steps = [n for bar in bars for n, _ in bar.steps]
    assert all(n >= 0 for n in steps)
    with pytest.raises(InputError):
        encoder.encode_chunks(["a", "b"], spans=[[(0, 1)], [(0, 9)]], show_progress_bar=True)
    assert bars[-1].closed


@pytest.mark.usefixtures("verbose")
def test_real_bar(minilm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Encoder(minilm).encode(["some text"] * 10)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Embedding" in captured.err
    assert "100%" in captured.err
