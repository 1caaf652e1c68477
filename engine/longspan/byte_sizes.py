"""Sizes of memory as people write them."""

from __future__ import annotations

import re
from fractions import Fraction

from .errors import InputError

UNITS = {"b": 1, **{f"{prefix}b": 1000**power for power, prefix in enumerate("kmgt", 1)}}
UNITS |= {f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgt", 1)}
MIB = 1 << 20


def parse_size(value: object, option: str = "memory") -> int:
    """Bytes from a whole number of them, or from text such as "2GiB" and "350 MB"; 1 kB is 1000 bytes, 1 KiB is 1024.

    Raises:
        InputError: it is no size of at least one byte; the message names the option.
    """
    size = 0
    if isinstance(value, str):
        found = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([a-z]*)\s*", value.lower(), re.ASCII)
        if found is not None:
            size = int(Fraction(found[1]) * UNITS.get(found[2] or "b", 0))
    elif hasattr(value, "__index__") and not isinstance(value, bool):
        size = int(value)
    if size < 1:
        raise InputError(f"{option} is {value!r}, expected bytes, or a size such as '350 MB' or '2GiB'")
    return size


def in_mib(size: int) -> str:
    """ "1,234.5"."""
    return f"{size / MIB:,.1f}"
