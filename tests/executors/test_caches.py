"""The size of a core's second-level cache, as Linux writes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from longspan.executors.caches import USUAL, near_cache_bytes


@pytest.mark.parametrize(("text", "size"), [("2048K\n", 2 << 20), ("512K", 1 << 19), ("1048576\n", 1 << 20)])
def test_the_size_is_read(tmp_path: Path, text: str, size: int) -> None:
    (tmp_path / "size").write_text(text)
    assert near_cache_bytes(tmp_path / "size") == size


@pytest.mark.parametrize("text", ["", "K", "big", None])
def test_what_is_not_said_is_the_usual(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "size").write_text(text)
    assert near_cache_bytes(tmp_path / "size") == USUAL


def test_this_machine_has_one() -> None:
    assert near_cache_bytes() >= 1 << 16
