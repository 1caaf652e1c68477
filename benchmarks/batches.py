"""What the graph runtimes need around their model: tokenised, length-sorted, padded batches, in and out of order."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Batch(NamedTuple):
    """Rows of a few texts of similar length, padded to the longest of them."""

    places: list[int]  # where these texts stood in the input
    inputs: dict[str, NDArray[np.int64]]


def input_names(model: Path) -> tuple[str, ...]:
    """What the folder's model is called with; only some models have token types."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    return ("input_ids", "attention_mask", *(("token_type_ids",) if config.get("type_vocab_size") else ()))


class Batcher:
    """The folder's tokenizer, cutting at `max_length`; what `tokenizer.json` says of cutting and padding is ignored."""

    def __init__(self, model: Path, max_length: int) -> None:
        self._tokenizer: Any = importlib.import_module("tokenizers").Tokenizer.from_file(str(model / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length)
        self._names = input_names(model)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included."""
        encode = getattr(self._tokenizer, "encode_batch_fast", self._tokenizer.encode_batch)
        return [encoding.ids for encoding in encode(list(texts))]

    def batches(self, texts: Sequence[str], size: int) -> Iterator[Batch]:
        """Longest first, so that little is padded and the last batch to finish is a short one."""
        ids = self.tokenize(texts)
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        for first in range(0, len(order), size):
            places = order[first : first + size]
            rows = np.zeros((len(places), len(ids[places[0]])), dtype=np.int64)
            mask = np.zeros_like(rows)
            for row, place in enumerate(places):
                rows[row, : len(ids[place])] = ids[place]
                mask[row, : len(ids[place])] = 1
            yield Batch(places, dict(zip(self._names, (rows, mask, np.zeros_like(rows)), strict=False)))


def pooled_module(model: Path, attention: str) -> tuple[Any, dict[str, Any]]:
    """The folder's transformer with mean pooling and normalising in the graph, and inputs to trace it with.

    Pooling belongs to the graph: only [batch, width] then leaves the runtime, which is best for it. `attention` is
    "eager" or "sdpa", how transformers writes it.
    """
    torch = importlib.import_module("torch")
    body = importlib.import_module("transformers").AutoModel.from_pretrained(str(model), attn_implementation=attention)

    class Pooled(torch.nn.Module):  # type: ignore[misc,name-defined,unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.body = body.float().eval()

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> Any:
            types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            hidden = self.body(input_ids=input_ids, attention_mask=attention_mask, **types)[0]
            weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
            mean = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
            return mean / mean.norm(dim=-1, keepdim=True).clamp(min=1e-12)

    ids = torch.randint(1000, 2000, (2, 16))
    values = (ids, torch.ones_like(ids), torch.zeros_like(ids))
    return Pooled().eval(), dict(zip(input_names(model), values, strict=False))
