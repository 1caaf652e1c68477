"""Answers from another process, for a peak of memory of its own, or an environment that is read when it starts."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any

from .peers import UnavailableError

Answer = Callable[[Any], Any]


class Elsewhere:
    """A process that calls make(*arguments) → (greeting, answer), and then answers one request after another.

    An `UnavailableError` there is raised here, and ends the process; where it ends otherwise, one names the exit code.

    Attributes:
        greeting: what was sent first.
    """

    def __init__(
        self, make: Callable[..., tuple[Any, Answer]], *arguments: object, environment: Mapping[str, str] | None = None
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        # No daemon: those may not have processes of their own, which exports are made in. It ends with the pipe.
        self._process = context.Process(target=_serve, args=(theirs, make, arguments))
        with _set(environment or {}):
            self._process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        self.greeting = self._receive()

    def ask(self, request: Any) -> Any:
        """The answer to a request."""
        with contextlib.suppress(BrokenPipeError):  # `_receive` says what became of the process
            self._pipe.send(request)
        return self._receive()

    def close(self) -> None:
        """Ends the process, and frees what it holds."""
        self._pipe.close()
        self._process.join()

    def _receive(self) -> Any:
        try:
            answer = self._pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            self._process.join()
            raise UnavailableError(f"its process ended with code {self._process.exitcode}") from error
        if isinstance(answer, UnavailableError):
            raise answer
        return answer


def _serve(pipe: Connection, make: Callable[..., tuple[Any, Answer]], arguments: tuple[object, ...]) -> None:
    try:
        greeting, answer = make(*arguments)
        pipe.send(greeting)
        while True:
            try:
                request = pipe.recv()
            except EOFError:
                return
            pipe.send(answer(request))
    except UnavailableError as error:
        pipe.send(error)


@contextlib.contextmanager
def _set(environment: Mapping[str, str]) -> Iterator[None]:
    """These variables for processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
