"""Model folders as sentence-transformers 2 wrote them, and changes to their files."""

from __future__ import annotations

import json
from pathlib import Path

WIDTH = 16
OLD_MODULES = {
    "Transformer": "",
    "Pooling": "1_Pooling",
    "Dense": "2_Dense",
    "LayerNorm": "3_LayerNorm",
    "Normalize": "4_Normalize",
}


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def update(path: Path, **fields: object) -> None:
    """Sets fields of a JSON file; None takes one away."""
    value: dict[str, object] = json.loads(path.read_text()) if path.exists() else {}
    value.update(fields)
    write(path, {name: field for name, field in value.items() if field is not None})


def make_old(folder: Path, *names: str, **pooling: object) -> Path:
    """Writes the files of sentence-transformers 2 around a transformer."""
    names = names or ("Transformer", "Pooling")
    modules = [
        {"idx": i, "name": str(i), "path": OLD_MODULES[name], "type": f"sentence_transformers.models.{name}"}
        for i, name in enumerate(names)
    ]
    write(folder / "modules.json", modules)
    write(folder / "sentence_bert_config.json", {"max_seq_length": 48, "do_lower_case": False})
    write(folder / "1_Pooling/config.json", {"word_embedding_dimension": WIDTH, **pooling})
    activation = "torch.nn.modules.activation.Tanh"
    dense = {"in_features": WIDTH, "out_features": 8, "bias": True, "activation_function": activation}
    write(folder / "2_Dense/config.json", dense)
    write(folder / "3_LayerNorm/config.json", {"dimension": 8})
    return folder
