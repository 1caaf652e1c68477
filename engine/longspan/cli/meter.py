"""The progress bar of a run: bytes of the input done, tokens/s and the time left."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Any

_FORMAT = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}B [{elapsed}<{remaining}{postfix}]"


class Meter:
    """Shown on standard error, from the first group of documents on.

    Args:
        shown: whether there is a bar at all.
        total: bytes of all inputs.
    """

    def __init__(self, shown: bool, total: int) -> None:
        self._shown = shown
        self._total = total
        self._bar: Any = None
        self._earlier = 0  # bytes of groups that an earlier run has done; they say nothing about the speed
        self._start = time.perf_counter()
        self._done = 0

    def __enter__(self) -> Meter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            if error is None:  # what broken records and blank lines took
                self._bar.update(self._total - self._bar.n)
            self._bar.close()

    def skip(self, size: int) -> None:
        """So many bytes were done by an earlier run."""
        self._earlier += size

    def begin(self) -> None:
        """The first group that is not done is about to be embedded."""
        if not self._shown or self._bar is not None:
            return
        from tqdm import tqdm  # 25 ms, only for those who look at it

        self._start = time.perf_counter()
        wide = os.get_terminal_size(sys.stderr.fileno()).columns > 0  # some terminals do not know their size
        self._bar = tqdm(
            total=self._total,
            initial=self._earlier,
            unit_scale=True,
            ncols=None if wide else 80,
            nrows=None if wide else 24,
            dynamic_ncols=wide,
            bar_format=_FORMAT,
        )

    def advance(self, size: int, done: int, unit: str) -> None:
        """A group of so many bytes is done, with so many tokens or documents."""
        if self._bar is None:
            return
        self._done += done
        rate = self._done / max(time.perf_counter() - self._start, 1e-9)
        self._bar.set_postfix_str(f"{rate:,.0f} {unit}/s", refresh=False)
        self._bar.update(size)
