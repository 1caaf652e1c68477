"""A peer in a process of its own, behind the same protocol, so that its peak of memory is its own."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from . import machine, peers
from .elsewhere import Answer, Elsewhere
from .peers import Setting, Source


class Worker:
    """`peers.make(name, source)` elsewhere. It has one setting: what the peer starts with."""

    settings: Sequence[Setting] = ({},)

    def __init__(self, name: str, source: Source) -> None:
        self._peer = Elsewhere(_make, name, source)
        self.name, self.precision = name, peers.PEERS[name][1]
        self.obeys_tier = bool(self._peer.greeting)

    def use(self, setting: Setting) -> None:
        """Nothing to choose."""

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        return np.asarray(self._peer.ask(texts), dtype=np.float32)

    def peak_memory_bytes(self) -> int:
        """The most memory that its process has had resident (VmHWM)."""
        return int(self._peer.ask(None))

    def close(self) -> None:
        """Ends the process, and frees what it holds."""
        self._peer.close()


def _make(name: str, source: Source) -> tuple[bool, Answer]:
    """Whether the peer obeys the tier, and what answers texts with vectors, and None with the peak of memory."""
    warnings.simplefilter("ignore")
    implementation = peers.make(name, source)

    def answer(request: list[str] | None) -> object:
        return machine.peak_memory_bytes() if request is None else implementation.encode(request)

    return implementation.obeys_tier, answer
