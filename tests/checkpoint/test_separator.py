"""Which checkpoints declare a token between chunks, and which only have one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from longspan.checkpoint.files import TransformerFiles
from longspan.checkpoint.separator import read_separator
from longspan.errors import CheckpointError

CONTEXTUAL = {"AutoConfig": "configuration.PPLXQwen3Config", "AutoModel": "modeling.PPLXQwen3ContextualModel"}
PLAIN = {"AutoConfig": "configuration.PPLXQwen3Config", "AutoModel": "modeling.PPLXQwen3Model"}


def write(folder: Path, config: object, tokenizer: object | None = None) -> TransformerFiles:
    (folder / "config.json").write_text(json.dumps(config))
    if tokenizer is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return TransformerFiles.inside(folder)


@pytest.mark.parametrize(
    ("config", "tokenizer", "separator"),
    [
        ({"model_type": "bert"}, {"sep_token": "[SEP]"}, None),
        ({"auto_map": PLAIN}, {"sep_token": "<|endoftext|>"}, None),
        ({"auto_map": CONTEXTUAL}, {"sep_token": "<|endoftext|>"}, "<|endoftext|>"),
        ({"auto_map": CONTEXTUAL}, {"sep_token": {"content": "<|endoftext|>", "special": True}}, "<|endoftext|>"),
        ({"boundary_marker": "<|chunk_sep|>"}, None, "<|chunk_sep|>"),
        ({"boundary_marker": "<|chunk_sep|>", "auto_map": CONTEXTUAL}, {"sep_token": "x"}, "<|chunk_sep|>"),
        ({"boundary_marker": None, "auto_map": None}, None, None),
        ({"auto_map": {}}, None, None),
    ],
)
def test_separators(tmp_path: Path, config: object, tokenizer: object, separator: str | None) -> None:
    assert read_separator(write(tmp_path, config, tokenizer)) == separator


@pytest.mark.parametrize(
    ("config", "tokenizer", "message"),
    [
        ({"boundary_marker": 7}, None, r"config\.json: field 'boundary_marker' is .*, expected a string"),
        ({"auto_map": "x"}, None, r"config\.json: field 'auto_map' is .*, expected an object"),
        ({"auto_map": CONTEXTUAL}, None, r"tokenizer_config\.json does not exist"),
        ({"auto_map": CONTEXTUAL}, {}, r"tokenizer_config\.json: field 'sep_token' is missing"),
        (
            {"auto_map": CONTEXTUAL},
            {"sep_token": {"lstrip": True}},
            r"tokenizer_config\.json: field 'sep_token' is missing",
        ),
        (
            {"auto_map": CONTEXTUAL},
            {"sep_token": 3},
            r"tokenizer_config\.json: field 'sep_token' is .*, expected a string",
        ),
    ],
)
def test_damage(tmp_path: Path, config: object, tokenizer: object, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_separator(write(tmp_path, config, tokenizer))
