"""Sizes of memory as people write them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from longspan import InputError
from longspan.byte_sizes import in_mib, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GiB", 2 << 30),
        ("350 MB", 350_000_000),
        (" 1.5 gib ", 3 << 29),
        ("10kB", 10_000),
        ("10KIB", 10_240),
        ("4096", 4096),
        ("4096 b", 4096),
        ("0.1TB", 10**11),
        ("9007199254740993", 9007199254740993),
        (7, 7),
        (np.int32(7), 7),
    ],
)
def test_sizes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "value", ["", "-1", "2 parsecs", "0", "0.4 B", "GiB", "1,5 GB", "2G", "1e9", "١ GB", "nan", 0, -5, 1.5, True, None]
)
def test_what_is_no_size(value: Any) -> None:
    with pytest.raises(InputError, match=f"^memory is {re.escape(repr(value))}, expected bytes, or a size such as"):
        parse_size(value)


def test_in_mib() -> None:
    assert in_mib(1_234_567_890) == "1,177.4"
