"""Which token a checkpoint was trained to see between the chunks of one document."""

from __future__ import annotations

from .config import Fields
from .files import TransformerFiles

CONTEXTUAL = "ContextualModel"


def read_separator(files: TransformerFiles) -> str | None:
    """The separator token, or None where chunks are plain text to the model.

    It is `boundary_marker` in config.json (pplx-embed-v2-context), or the tokenizer's `sep_token` where config.json
    maps AutoModel to a contextual model (pplx-embed-context-v1). A `sep_token` alone says nothing: BERT has one too.

    Raises:
        CheckpointError: a file is damaged, or names no token where it should.
    """
    config = Fields.read(files.config)
    marker = config.optional_text("boundary_marker")
    if marker is not None or not (config.table("auto_map").optional_text("AutoModel") or "").endswith(CONTEXTUAL):
        return marker
    tokenizer = Fields.read(files.tokenizer / "tokenizer_config.json")
    given = tokenizer.values.get("sep_token")
    token = (
        tokenizer.table("sep_token").optional_text("content")
        if isinstance(given, dict)
        else tokenizer.optional_text("sep_token")
    )
    if token is None:
        raise tokenizer.wrong("sep_token", "is missing, but config.json says that it stands between chunks")
    return token
