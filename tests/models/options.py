"""What the configurations of a model type cover, in a few words: read off the config and the body, for the table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from longspan.models.family import Body
from longspan.program.instructions import Attention, Embed, Moe, Qkv

SCALINGS = {"linear": "linear", "dynamic": "dynamic NTK", "yarn": "YaRN", "llama3": "Llama-3", "longrope": "LongRoPE"}
OPTIONS = (
    *(
        "learned positions",
        "RoPE",
        "RoPE on part of a head",
        "interleaved RoPE",
        *SCALINGS.values(),
        "ALiBi",
        "T5 bias",
    ),
    *("causal", "both sides", "windows", "fewer kv heads", "norms of q and k", "soft cap", "experts"),
)
"""All of them, in the order of the table."""


def options_of(config: Mapping[str, Any], body: Body) -> tuple[str, ...]:
    """Those that hold of a checkpoint."""
    return tuple(dict.fromkeys((*_scalings(config), *(name for step in body.instructions for name in _of(step)))))


def _scalings(config: Mapping[str, Any]) -> Iterator[str]:
    """The types of RoPE's scaling anywhere in a config."""
    for value in config.values():
        if isinstance(value, Mapping):
            kind = value.get("rope_type", value.get("type"))
            if kind in SCALINGS:
                yield SCALINGS[kind]
            yield from _scalings(value)


def _of(step: object) -> Iterator[str]:
    if isinstance(step, Embed) and step.positions is not None:
        yield "learned positions"
    elif isinstance(step, Moe):
        yield "experts"
    elif isinstance(step, Qkv):
        if step.rope is not None:
            yield "RoPE" if step.rope.size == step.head_size else "RoPE on part of a head"
            yield from ["interleaved RoPE"] if step.rope.interleaved else []
        yield from ["norms of q and k"] if step.norm is not None else []
    elif isinstance(step, Attention):
        yield "causal" if step.right == 0 else "both sides"
        given = {
            "windows": step.left is not None,
            "fewer kv heads": step.kv_heads < step.heads,
            "soft cap": step.soft_cap is not None,
            "ALiBi": bool(step.slopes),
            "T5 bias": step.relative is not None,
        }
        yield from (name for name, holds in given.items() if holds)
