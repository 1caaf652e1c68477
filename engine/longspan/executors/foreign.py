"""Any model of transformers as a body: its token vectors, then our pooling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModel

from ..batch import Float32, Int64, PackedBatch
from ..errors import CheckpointError, InputError
from ..program import instructions as ops
from ..program.program import Program
from .reference import ReferenceExecutor, execute

GROUP_TOKENS = 4096
"""Tokens of the segments that go through the model together. They are of one length, so nothing is padded."""

TRIED = 8
"""Tokens that a model is tried out with."""


class ForeignExecutor(ReferenceExecutor):
    """Runs a Hugging Face model in float32, and pools its last hidden states.

    Of an encoder and a decoder that is the whole where token ids are enough for it, as for BART and in
    sentence-transformers, else the encoder.

    Args:
        body: a program whose input is the token vectors [T, D], and which pools them.
        folder: the model's.
        device: where it runs.

    Raises:
        CheckpointError: transformers cannot load it, or it does not turn token ids into token vectors.
    """

    def __init__(self, body: Program, folder: Path, *, device: str = "cpu") -> None:
        super().__init__(body, {}, device=device)
        try:
            model = AutoModel.from_pretrained(str(folder), dtype=torch.float32, trust_remote_code=False)
        except Exception as error:  # transformers raises all kinds
            raise CheckpointError(f"{folder} cannot be loaded by transformers: {error}") from error
        self._model = self._checked(model.to(device).eval(), folder)

    def run_body(self, batch: PackedBatch, *, poll: Callable[[int], None] | None = None) -> tuple[Float32, ...]:
        """One float32 array [P_i, D] per `pool`, by ascending index.

        Raises:
            InputError: the batch is for a task, whose adaptation is not known here.
        """
        if batch.task is not None:
            raise InputError("backend='transformers' runs a model as it is: without the adaptation for a task")
        (tokens,) = self.body.inputs
        vectors = torch.zeros((batch.tokens, tokens.width), dtype=self.dtype, device=self.device)
        done = 0
        for segments in _groups(batch.cu_seqlens):
            rows = np.stack([np.arange(*batch.cu_seqlens[index : index + 2]) for index in segments])
            ids = torch.tensor(batch.ids[rows], dtype=torch.int64, device=self.device)
            vectors[rows.reshape(-1)] = _forward(self._model, ids).flatten(0, 1)
            done += rows.size
            if poll is not None:
                poll(done)
        buffers = execute(self.body, {tokens.name: vectors}, {}, batch)
        pools = sorted((op for op in self.body.instructions if isinstance(op, ops.Pool)), key=lambda op: op.index)
        return tuple(buffers[op.out.name].cpu().numpy() for op in pools)

    def _checked(self, model: Any, folder: Path) -> Any:
        """What of a model runs on token ids alone, tried out on a few."""
        (tokens,) = self.body.inputs
        ids = torch.zeros((1, TRIED), dtype=torch.int64, device=self.device)
        expected = (1, TRIED, tokens.width)
        models = [model, model.get_encoder()] if model.config.is_encoder_decoder else [model]
        reason = ""
        for candidate in models:
            try:
                shape = tuple(_forward(candidate, ids).shape)
            except Exception as error:  # models raise all kinds
                reason = f"{type(error).__name__}: {error}"
            else:
                if shape == expected:
                    return candidate
                reason = f"their shape is {list(shape)}, expected {list(expected)}"
        raise CheckpointError(f"{folder}: {type(model).__name__} gives no token vectors for token ids alone: {reason}")


def _forward(model: Any, ids: Tensor) -> Tensor:
    """Token vectors [segments, tokens, D] of ids [segments, tokens]."""
    with torch.inference_mode():
        vectors: Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    return vectors


def _groups(cu_seqlens: Int64) -> Iterator[list[int]]:
    """Segments of one length, as many as go together."""
    lengths = np.diff(cu_seqlens)
    order = [index for index in np.argsort(lengths, kind="stable").tolist() if lengths[index]]
    for length, same in groupby(order, key=lambda index: int(lengths[index])):
        segments, count = list(same), max(1, GROUP_TOKENS // length)
        yield from (segments[first : first + count] for first in range(0, len(segments), count))
