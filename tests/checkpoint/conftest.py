"""A model folder to read, and one to change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from transformers import BertConfig, BertModel, BertTokenizerFast

from .folders import WIDTH


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random BERT as transformers saves it."""
    folder = tmp_path_factory.mktemp("plain")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]
    (folder / "vocab.txt").write_text("\n".join(words))
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(plain: Path, tmp_path: Path) -> Path:
    """A copy of the plain folder that a test may change."""
    return Path(shutil.copytree(plain, tmp_path / "model"))
