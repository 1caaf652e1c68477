"""Files that a peer runs from, made once from the model folder, in a process of its own.

What exporting takes (torch, NNCF, gigabytes) then weighs neither on the measured process nor on its peak of memory.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

Export = Callable[[Path, Path], None]  # (model folder, file or folder to write); importable by name


def once(path: Path, export: Export, model: Path) -> Path:
    """`path`, written by `export` in a fresh process unless it is there already; what that raises is raised here."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context, initializer=_silence) as pool:
            pool.submit(export, model, path).result()
    return path


@contextlib.contextmanager
def folder(given: Path | None) -> Iterator[Path]:
    """Where exports go: the given folder, or one that is gone afterwards."""
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="benchmark-exports-") as made:
        yield Path(made)


def _silence() -> None:
    """Hides the exporters' chatter, which has nothing to do with the measurement."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
