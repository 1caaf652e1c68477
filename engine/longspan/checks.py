"""Checks on options that several places share."""

from __future__ import annotations


def is_count(value: object, least: int) -> bool:
    """Whether an option is an integer, numpy's included, of at least `least`; True and False are none."""
    return not isinstance(value, bool) and hasattr(value, "__index__") and int(value) >= least
