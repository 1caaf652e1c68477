"""Longspan: an embedding engine for long documents and small machines."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .encoder import Encoder
    from .errors import (
        CheckpointError,
        CheckpointNotFoundError,
        InputError,
        InputTypeError,
        LongspanError,
        LongTextWarning,
        MemoryCeilingError,
        UnusedWeightsWarning,
    )
    from .plan import Plan
    from .pooling.precision import Ranges
    from .results import Chunks, DocumentEmbedding, Usage
    from .search import Hits, semantic_search
    from .streaming import SizedChunk, StreamedChunk
    from .text.windows import Window

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "CheckpointNotFoundError",
    "Chunks",
    "DocumentEmbedding",
    "Encoder",
    "Hits",
    "InputError",
    "InputTypeError",
    "LongTextWarning",
    "LongspanError",
    "MemoryCeilingError",
    "Plan",
    "Ranges",
    "SizedChunk",
    "StreamedChunk",
    "UnusedWeightsWarning",
    "Usage",
    "Window",
    "__version__",
    "semantic_search",
]

# Where each public name is defined. They are imported on first use, so that `longspan --help` is quick.
_HOMES = {
    "Encoder": "encoder",
    "Plan": "plan",
    "Chunks": "results",
    "DocumentEmbedding": "results",
    "Usage": "results",
    "Ranges": "pooling.precision",
    "Hits": "search",
    "semantic_search": "search",
    "SizedChunk": "streaming",
    "StreamedChunk": "streaming",
    "Window": "text.windows",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES.get(name, 'errors')}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
