"""What libraries report on their own, kept out of a command's output while it runs, and no longer."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator, Mapping

# Each unless the caller has set it; processes that start meanwhile inherit it.
ENVIRONMENT: Mapping[str, str] = {
    "TOKENIZERS_PARALLELISM": "true",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
}
LOGGERS = ("transformers", "sentence_transformers", "onnxruntime")


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Peers report their own progress and versions; none of it belongs in the output."""
    missing = [name for name in ENVIRONMENT if name not in os.environ]
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    os.environ.update({name: ENVIRONMENT[name] for name in missing})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
    finally:
        for name in missing:
            os.environ.pop(name, None)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
