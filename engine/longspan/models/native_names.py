"""Modules by transformers' names, where a checkpoint has the names of the original code; an adapter has either."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ..checkpoint.share import Share
from .gte import ORIGINAL as GTE
from .jina_v3 import ORIGINAL as JINA_V3
from .nomic_bert import ORIGINAL as NOMIC_BERT
from .rotary_bert import NATIVE, Names


@dataclass(frozen=True, slots=True)
class Original:
    """The names of a family's original code.

    Attributes:
        names: of all modules but those of the MLP.
        mlp: those, by transformers' names.
    """

    names: Names
    mlp: Mapping[str, Share]

    def share(self, module: str) -> Share:
        """Where a module of transformers' is; itself where it is none of them."""
        if module.endswith(NATIVE.embedding_norm):
            return Share(module.removesuffix(NATIVE.embedding_norm) + self.names.embedding_norm)
        found = re.fullmatch(rf"((?:.*\.)?){NATIVE.layer}\.(\d+)\.(.+)", module)
        own = self._of_layer().get(found[3]) if found else None
        if found is None or own is None:
            return Share(module)
        return Share(f"{found[1]}{self.names.layer}.{found[2]}.{own.module}", own.index, own.count)

    def _of_layer(self) -> dict[str, Share]:
        (packed,) = self.names.qkv
        return {
            **{name: Share(packed, index, len(NATIVE.qkv)) for index, name in enumerate(NATIVE.qkv)},
            NATIVE.output: Share(self.names.output),
            NATIVE.attention_norm: Share(self.names.attention_norm),
            NATIVE.mlp_norm: Share(self.names.mlp_norm),
            **self.mlp,
        }


ORIGINALS = (
    Original(
        NOMIC_BERT,
        {
            "mlp.up_proj": Share("mlp.fc11"),
            "mlp.gate_proj": Share("mlp.fc12"),
            "mlp.down_proj": Share("mlp.fc2"),
        },
    ),
    Original(
        GTE,
        {
            "mlp.up_proj": Share("mlp.up_gate_proj", 0, 2),
            "mlp.gate_proj": Share("mlp.up_gate_proj", 1, 2),
            "mlp.down_proj": Share("mlp.down_proj"),
        },
    ),
    Original(JINA_V3, {"mlp.fc1": Share("mlp.fc1"), "mlp.fc2": Share("mlp.fc2")}),
)


def stored_as(module: str, tensors: Collection[str]) -> Share:
    """Where a checkpoint of such tensors has a module that an adapter changes."""
    for original in ORIGINALS:
        if any(f".{original.names.qkv[0]}." in name for name in tensors):
            return original.share(module)
    return Share(module)
