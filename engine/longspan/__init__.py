"""Longspan: an embedding engine for long documents and small machines."""

from __future__ import annotations

from .encoder import Encoder
from .errors import (
    CheckpointError,
    CheckpointNotFoundError,
    InputError,
    InputTypeError,
    LongspanError,
    LongTextWarning,
)
from .results import Chunks, DocumentEmbedding, Usage
from .streaming import StreamedChunk
from .text.windows import Window

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "CheckpointNotFoundError",
    "Chunks",
    "DocumentEmbedding",
    "Encoder",
    "InputError",
    "InputTypeError",
    "LongTextWarning",
    "LongspanError",
    "StreamedChunk",
    "Usage",
    "Window",
    "__version__",
]
