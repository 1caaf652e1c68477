"""The fixed texts that a model is looked at with while its weights are rounded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .batch import PackedBatch, Partials
from .text.packing import Document, pack
from .text.tokenizer import Tokenizer
from .text.windows import split_windows

TEXTS = Path(__file__).with_name("samples.txt")
"""64 texts, one a line: prose of many fields, questions, code and tables, in eleven languages."""


def sample_batch(tokenizer: Tokenizer, positions: int, pools: int) -> PackedBatch:
    """The texts as a batch, each cut to what the model has positions for; nothing is pooled."""
    texts = TEXTS.read_text(encoding="utf-8").splitlines()
    room = max(1, positions - len(tokenizer.prefix) - len(tokenizer.suffix))
    nothing = np.zeros(0, np.int32)
    documents = [
        Document(nothing, tokens.ids[:room], split_windows(min(len(tokens.ids), room), room, 0))
        for tokens in tokenizer.encode(texts, offsets=False)
    ]
    packed = pack(documents, tokenizer.prefix, tokenizer.suffix)
    none = Partials(
        starts=np.zeros(0, np.int64),
        ends=np.zeros(0, np.int64),
        first_weight=np.zeros(0, np.float32),
        weight_step=np.zeros(0, np.float32),
        cu_vectors=np.zeros(1, np.int64),
    )
    return PackedBatch(packed.ids, packed.positions, packed.cu_seqlens, (none,) * pools)
