"""What all tests of models run under."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from .parity import MEASURED, write


def pytest_sessionfinish(exitstatus: int) -> None:
    """Writes what was measured where that is asked for, unless a test failed."""
    page = os.environ.get("LONGSPAN_MODELS_TABLE")
    if page and exitstatus == 0 and MEASURED:
        write(Path(page), MEASURED)


@pytest.fixture(scope="module", autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Models are so tiny here that torch's threads cost more than they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def same_weights() -> None:
    """Whichever tests run before."""
    torch.manual_seed(0)
