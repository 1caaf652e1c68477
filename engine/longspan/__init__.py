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
from .results import DocumentEmbedding, Usage
from .text.windows import Window

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "CheckpointNotFoundError",
    "DocumentEmbedding",
    "Encoder",
    "InputError",
    "InputTypeError",
    "LongTextWarning",
    "LongspanError",
    "Usage",
    "Window",
    "__version__",
]
