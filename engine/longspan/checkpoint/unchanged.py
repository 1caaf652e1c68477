"""Whether files are still what they were: whoever reads a mapped file that was cut short is killed by the system.

A file that is gone or has another in its place is no matter: what is mapped or open is still the old one, whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ..errors import CheckpointError

Signature = tuple[int, int, int, int]
"""Device, inode, bytes, and when it was written, in nanoseconds."""


class Unchanged:
    """Files as they are now.

    Args:
        paths: of the files; those that do not exist are passed over.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._known = {path: _signature(path) for path in dict.fromkeys(paths) if path.exists()}

    def check(self) -> None:
        """Raise a CheckpointError that names a file which was cut short, grew or was written to."""
        for path, before in self._known.items():
            try:
                now = _signature(path)
            except OSError:
                continue
            if now == before or now[:2] != before[:2]:
                continue
            if now[2] != before[2]:
                what = f"had {before[2]} bytes when the model was loaded and has {now[2]} now"
            else:
                what = "was written to since the model was loaded"
            raise CheckpointError(f"{path} {what}; load the model again.")


def _signature(path: Path) -> Signature:
    status = os.stat(path)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
