"""A progress bar in tokens, and none at all where nobody asked for one."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Any

LOGGER = logging.getLogger("longspan")


class Progress:
    """Shows tokens done, tokens/s and the time left, on standard error.

    How many tokens there are is known only once a text is tokenised, so the total starts as an estimate.

    Args:
        shown: None shows the bar where the logger "longspan" is at INFO or below, as sentence-transformers does.
        characters: the length of all texts.
    """

    def __init__(self, shown: bool | None, characters: int) -> None:
        self._characters_left = characters
        self._begun = 0  # tokens of all slices before the current one
        self._slice = 0
        self._bar: Any = None
        if LOGGER.isEnabledFor(logging.INFO) if shown is None else shown:
            from tqdm.auto import tqdm  # 25 ms, only for those who look at it

            self._bar = tqdm(
                total=characters // 4 + 1, unit="tok", unit_scale=True, dynamic_ncols=True, desc="Embedding"
            )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            if error is None:
                self.reach(self._slice)
            self._bar.close()

    def begin(self, tokens: int, characters: int) -> None:
        """The next slice of the texts has so many tokens, and came from so many characters."""
        self._begun += self._slice
        self._slice = tokens
        self._characters_left -= characters
        if self._bar is not None:
            self._bar.total = self._begun + tokens + int(self._characters_left * tokens / max(characters, 1))
            self._bar.refresh()

    def reach(self, done: int) -> None:
        """So many tokens of the current slice are done."""
        if self._bar is not None:
            self._bar.update(self._begun + done - self._bar.n)
