"""A peer in a process of its own, behind the same protocol, so that its peak of memory is its own."""

from __future__ import annotations

import contextlib
import multiprocessing
import warnings
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import machine, peers
from .peers import Setting, Source


class Worker:
    """`peers.make(name, source)` elsewhere. It has one setting: what the peer starts with."""

    settings: Sequence[Setting] = ({},)

    def __init__(self, name: str, source: Source) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        # No daemon: those may not have processes of their own, which exports are made in. It ends with the pipe.
        self._process = context.Process(target=_serve, args=(theirs, name, source))
        self._process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        self.name, self.precision = name, peers.PEERS[name][1]
        self.obeys_tier = bool(self._receive())

    def use(self, setting: Setting) -> None:
        """Nothing to choose."""

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        return np.asarray(self._ask(texts), dtype=np.float32)

    def peak_memory_bytes(self) -> int:
        """The most memory that its process has had resident (VmHWM)."""
        return int(self._ask(None))

    def close(self) -> None:
        """Ends the process, and frees what it holds."""
        self._pipe.close()
        self._process.join()

    def _ask(self, request: list[str] | None) -> Any:
        with contextlib.suppress(BrokenPipeError):  # `_receive` says what became of the process
            self._pipe.send(request)
        return self._receive()

    def _receive(self) -> Any:
        try:
            answer = self._pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            self._process.join()
            raise peers.UnavailableError(f"its process ended with code {self._process.exitcode}") from error
        if isinstance(answer, Exception):
            raise answer
        return answer


def _serve(pipe: Connection, name: str, source: Source) -> None:
    """Answers texts with vectors, and None with the peak of memory, until the other side closes the pipe."""
    warnings.simplefilter("ignore")
    try:
        implementation = peers.make(name, source)
    except peers.UnavailableError as error:
        pipe.send(error)
        return
    pipe.send(implementation.obeys_tier)
    while True:
        try:
            request = pipe.recv()
        except EOFError:
            return
        pipe.send(machine.peak_memory_bytes() if request is None else implementation.encode(request))
