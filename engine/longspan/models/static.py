"""StaticEmbedding: a table of token vectors, without layers."""

from __future__ import annotations

from ..checkpoint.tensors import Tensors
from ..checkpoint.transformer import UNLIMITED
from ..errors import CheckpointError
from ..program.instructions import Embed
from .family import Body, tokens_buffer, weight

NAME = "embedding.weight"


def static(tensors: Tensors) -> Body:
    """The body of a checkpoint that holds one table, [vocabulary, D].

    Raises:
        CheckpointError: it holds none.
    """
    if NAME not in tensors or len(tensors[NAME].shape) != 2:
        raise CheckpointError(f"{tensors.source} has no table {NAME!r}, which a StaticEmbedding is")
    vocabulary, width = tensors[NAME].shape
    x = tokens_buffer("x", width)
    return Body("static", (Embed(stage=0, out=x, tokens=weight(NAME, vocabulary, width)),), x, max_positions=UNLIMITED)
