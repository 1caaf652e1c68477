"""What of a core's caches decides how large tiles are."""

from __future__ import annotations

from pathlib import Path

SECOND_LEVEL = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")
USUAL = 1 << 20
"""Bytes where the system does not say."""


def near_cache_bytes(file: Path = SECOND_LEVEL) -> int:
    """Bytes of a core's second-level cache."""
    try:
        size = file.read_text().strip()
        return int(size.removesuffix("K")) << 10 if size.endswith("K") else int(size)
    except (OSError, ValueError):
        return USUAL
