"""Files that a peer runs from, made once from the model folder, in a process of its own.

What exporting takes (torch, NNCF, gigabytes) then weighs neither on the measured process nor on its peak of memory.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import warnings
from collections.abc import Callable
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


def _silence() -> None:
    """Hides the exporters' chatter, which has nothing to do with the measurement."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
