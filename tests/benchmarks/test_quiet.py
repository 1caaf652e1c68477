"""Libraries are quiet while a command runs, and as they were afterwards."""

from __future__ import annotations

import logging
import os
import warnings

import pytest
from benchmarks.quiet import ENVIRONMENT, quiet_libraries


def test_all_is_as_before_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "0")
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    logger = logging.getLogger("transformers")
    before, level, filters = dict(os.environ), logger.level, list(warnings.filters)

    def fail() -> None:
        with quiet_libraries():
            assert os.environ["TQDM_DISABLE"] == "0"
            assert os.environ["TOKENIZERS_PARALLELISM"] == ENVIRONMENT["TOKENIZERS_PARALLELISM"]
            assert logger.level == logging.ERROR
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (dict(os.environ), logger.level, list(warnings.filters)) == (before, level, filters)
