"""Files that are not any more what they were."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from longspan import CheckpointError
from longspan.checkpoint.unchanged import Unchanged


def shrink(path: Path) -> None:
    os.truncate(path, 10)


def write(path: Path) -> None:
    path.write_bytes(b"y" * 1000)
    os.utime(path, ns=(1, 1))


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.rename(path)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (shrink, "had 1000 bytes when the model was loaded and has 10 now; load the model again"),
        (write, "was written to since the model was loaded"),
    ],
)
def test_changes(tmp_path: Path, change: Callable[[Path], None], what: str) -> None:
    path, same = tmp_path / "weights", tmp_path / "same"
    path.write_bytes(b"x" * 1000)
    same.write_bytes(b"x")
    files = Unchanged([same, path, path, tmp_path / "never there"])
    files.check()
    change(path)
    with pytest.raises(CheckpointError, match=f"^{path} {what}"):
        files.check()


@pytest.mark.parametrize("change", [Path.unlink, replace])
def test_what_does_not_touch_the_file_itself(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"x" * 1000)
    files = Unchanged([path])
    change(path)
    files.check()
