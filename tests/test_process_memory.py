"""What the kernel says about this process."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest

from longspan import InputError
from longspan.process_memory import measure

SIZE = 8 << 20


def test_sees_what_is_touched() -> None:
    with mmap.mmap(-1, SIZE) as block:  # pages of its own: an array may get memory that was freed
        before = measure()
        block[:] = b"x" * SIZE
        after = measure()
    assert 0.9 * SIZE < after.resident - before.resident < 3 * SIZE
    assert after.peak >= after.resident


def test_sees_pages_of_a_file(tmp_path: Path) -> None:
    path, other = tmp_path / "with a space.bin", tmp_path / "other.bin"
    for file in (path, other):
        file.write_bytes(b"x" * SIZE)
    with path.open("rb") as one, other.open("rb") as two:
        maps = [mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) for file in (one, two)]
        assert measure({path}).mapped == 0
        assert sum(np.frombuffer(mapped, np.uint8)[::4096].sum() for mapped in maps)
        assert measure({path}).mapped == SIZE
        assert measure({path, other}).mapped == 2 * SIZE
        assert measure({tmp_path / "absent"}).mapped == 0


def test_elsewhere_than_on_linux(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a plan needs what Linux tells in"):
        measure(proc=tmp_path)
    (tmp_path / "status").write_text("Name: x\n")
    with pytest.raises(InputError, match="a plan needs what Linux tells in"):
        measure(proc=tmp_path)
