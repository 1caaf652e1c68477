"""What a model's work is in operations, and what this machine's cores could do of them at most."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from .. import machine

TRIALS = 5


def ceilings(isa: str) -> dict[str, float]:
    """The most operations per second on all cores, by precision: loops on registers alone, the best of some trials.

    `isa` is a tier's name, empty for the best that this machine has; of a tier that it lacks there are none.
    """
    try:
        peak = importlib.import_module("longspan._csrc").peak_gflops
        return {
            precision: 1e9 * max(peak(isa, machine.cores(), precision) for _ in range(TRIALS))
            for precision in ("float32", "bfloat16", "int8")
        }
    except (ImportError, ValueError):  # not built, or another tier
        return {}


def operations(config: Mapping[str, Any], lengths: Sequence[int]) -> float:
    """Multiplications and additions of an encoder's layers (BERT or ModernBERT) over texts of these token counts.

    Attention inside a window counts what the window covers, even where a peer calculates more.
    """
    width, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    gated = config.get("model_type") == "modernbert"
    linears = 2 * layers * (4 * width * width + (3 if gated else 2) * width * inner)
    every = config.get("global_attn_every_n_layers", 1) if gated else 1
    whole = -(-layers // every)
    window = config.get("local_attention", 0) + 1
    scores = sum(whole * n * n + (layers - whole) * n * min(n, window) for n in lengths)
    return float(linears * sum(lengths) + 4 * width * scores)
