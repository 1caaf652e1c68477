"""A plugin of pytest: all tests of the process use the sanitised build of `longspan._csrc`.

The environment's LONGSPAN_SANITIZED names its folder. The sanitiser's library comes by LD_PRELOAD: see `make sanitize`.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path


def _load(folder: Path) -> None:
    """Put the extension module of a build folder where `import longspan` looks for it."""
    name = "longspan._csrc"
    (file,) = (folder / f"_csrc{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES[:1])
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


_load(Path(os.environ["LONGSPAN_SANITIZED"]))
