"""Which tier of instructions the environment asks for."""

from __future__ import annotations

import os


def wanted_tier() -> str:
    """What LONGSPAN_ISA says, one of `_csrc.tiers()`; empty for the best that the machine has."""
    return os.environ.get("LONGSPAN_ISA", "")
