"""Whether files are still what they were: whoever reads a mapped file that was cut short is killed by the system."""

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
        """Raise a CheckpointError that names a file which is gone, is another one now, or was written to."""
        for path, before in self._known.items():
            try:
                now = _signature(path)
            except OSError as error:
                raise CheckpointError(f"{path} is gone since the model was loaded: {error.strerror}.") from error
            if now == before:
                continue
            if now[:2] != before[:2]:
                what = "is another file than when the model was loaded"
            elif now[2] != before[2]:
                what = f"had {before[2]} bytes when the model was loaded and has {now[2]} now"
            else:
                what = "was written to since the model was loaded"
            raise CheckpointError(f"{path} {what}; load the model again.")


def _signature(path: Path) -> Signature:
    status = os.stat(path)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
