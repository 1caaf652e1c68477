"""The fixed texts that a model is looked at with while its weights are rounded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .batch import PackedBatch
from .pooling.modes import Mode
from .pooling.partials import document_partials
from .text.packing import Document, pack
from .text.tokenizer import Tokenizer
from .text.windows import split_windows

TEXTS = Path(__file__).with_name("samples.txt")
"""64 texts, one a line: prose of many fields, questions, code and tables, in eleven languages."""


def sample_batch(tokenizer: Tokenizer, positions: int, modes: Sequence[Mode]) -> PackedBatch:
    """The texts as a batch, each cut to what the model has positions for, and pooled in each of the modes."""
    texts = TEXTS.read_text(encoding="utf-8").splitlines()
    room = max(1, positions - len(tokenizer.prefix) - len(tokenizer.suffix))
    nothing = np.zeros(0, np.int32)
    documents = [
        Document(nothing, tokens.ids[:room], split_windows(min(len(tokens.ids), room), room, 0))
        for tokens in tokenizer.encode(texts, offsets=False)
    ]
    packed = pack(documents, tokenizer.prefix, tokenizer.suffix)
    partials = (document_partials(packed, mode, include_prompt=True) for mode in modes)
    return PackedBatch(packed.ids, packed.positions, packed.cu_seqlens, tuple(partials))
