"""Tokenizers that are not stored as a tokenizer.json: merges and vocabularies, sentencepiece models."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ..errors import CheckpointError, CheckpointNotFoundError

SOURCES = ("merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "tekken.json", "vocab.txt")


def convert_tokenizer(folder: Path) -> tuple[Path, str]:
    """The file that a folder's tokenizer is made from, and the tokenizer.json that transformers makes of it.

    Raises:
        CheckpointNotFoundError: there is no such file.
        CheckpointError: transformers is not installed, or cannot convert it.
    """
    path = next((folder / name for name in SOURCES if (folder / name).exists()), None)
    if path is None:
        raise CheckpointNotFoundError(
            f"{folder} has no tokenizer.json, nor another tokenizer's file ({', '.join(SOURCES)}); "
            "transformers' AutoTokenizer.from_pretrained(...).save_pretrained(...) writes one"
        )
    if find_spec("transformers") is None:
        raise CheckpointError(
            f"{folder} has no tokenizer.json, and converting {path.name} needs transformers (pip install transformers "
            "sentencepiece); or save the tokenizer with AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        )
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        converted: str = tokenizer.backend_tokenizer.to_str()
    except Exception as error:  # transformers and tokenizers raise all kinds
        raise CheckpointError(f"{path} cannot be converted by transformers: {error}") from error
    return path, converted
