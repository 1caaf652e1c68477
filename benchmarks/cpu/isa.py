"""Longspan and its peers held to a tier of instructions, so that like is compared with like."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping


def _environment(tier: str, onednn: str, vectors: str, fbgemm: str) -> Mapping[str, str]:
    """Read by Longspan; oneDNN in OpenVINO and torch; OpenVINO's own kernels; torch's own; MKL and FBGEMM in torch."""
    return {
        "LONGSPAN_ISA": tier,
        "ONEDNN_MAX_CPU_ISA": onednn,
        "OV_CPU_MAX_ISA": onednn,
        "ATEN_CPU_CAPABILITY": vectors.lower(),
        "MKL_ENABLE_INSTRUCTIONS": vectors,
        "FBGEMM_ENABLE_INSTRUCTIONS": fbgemm,
    }


TIERS: Mapping[str, Mapping[str, str]] = {
    "v3": _environment("v3", "AVX2", "AVX2", "AVX2"),
    "v4": _environment("v4", "AVX512_CORE", "AVX512", "AVX512"),
    "v4+vnni": _environment("v4+vnni", "AVX512_CORE_VNNI", "AVX512", "AVX512_E1"),
    "v4+bf16": _environment("v4+bf16", "AVX512_CORE_BF16", "AVX512", "AVX512_E1"),
    "v4+amx": _environment("v4+amx", "AVX512_CORE_AMX", "AVX512", "AVX512_E1"),
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
