"""Longspan and its peers held to a tier of instructions, so that like is compared with like."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

# Read by Longspan; by oneDNN inside OpenVINO and torch; by OpenVINO's own kernels; by torch's own; by MKL inside torch.
TIERS: Mapping[str, Mapping[str, str]] = {
    "v3": {
        "LONGSPAN_ISA": "v3",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OV_CPU_MAX_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
    "v4": {
        "LONGSPAN_ISA": "v4",
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16",
        "OV_CPU_MAX_ISA": "AVX512_CORE_BF16",
        "ATEN_CPU_CAPABILITY": "avx512",
        "MKL_ENABLE_INSTRUCTIONS": "AVX512",
    },
}


def hold(tier: str) -> None:
    """Starts this command again with the tier's environment, unless that is set: libraries read it as they load."""
    wanted = TIERS[tier]
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        sys.stdout.flush()
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **wanted})


def report(tier: str, obeyed: Mapping[str, bool]) -> str:
    """A line that says who was held; `obeyed` by name."""
    held = [name for name, kept in obeyed.items() if kept]
    free = [name for name, kept in obeyed.items() if not kept]
    line = f"held to {tier}: {', '.join(held) or 'nobody'}"
    return line + (f"; not held (*), they use all that the processor has: {', '.join(free)}" if free else "")
