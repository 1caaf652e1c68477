"""Callers of one executor take turns: small batches that wait at the same time run as one, large ones let others in.

It changes no bit of a result, as those of a segment depend on nothing but the segment.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import TypeVar

from ..batch import PackedBatch
from .joining import Cut, Poll, Pooled, joined, shares

SMALL_TOKENS = 512
"""A batch of so many tokens at most is taken along by others."""

TOGETHER_TOKENS = 2048
"""Tokens of such batches that run as one, at most: from some hundred on, more of them win nothing."""

GROWTH = 4
"""How much larger the parts of a large batch are while nobody waits."""

FROM_INSIDE = "an encoder was called from inside a running call, by a signal handler or a callback"

T = TypeVar("T")


class Within(Enum):
    """What a thread is at: a batch, whose caller may have others between its parts, or work that runs alone."""

    BATCH = auto()
    WORK = auto()


class Coalescer:
    """Takes batches from several threads to a function that runs one at a time.

    Args:
        run: runs a batch; told how many tokens are done, the second argument may raise, which ends the run. What a
            signal handler raises ends it after the second argument was called, and a ValueError of the batch before.
        part_tokens: how much of a large batch runs while others wait.
    """

    def __init__(self, run: Callable[[PackedBatch, Poll | None], Pooled], part_tokens: int) -> None:
        self._run = run
        self._part_tokens = part_tokens
        self._queue = _Queue()

    def run(self, batch: PackedBatch, poll: Poll | None) -> Pooled:
        """What the batch pools to.

        Callers come in the order of their arrival. Whoever's turn it is takes along what the others behind it wait
        for, where all are small. What `poll` or a signal handler raises concerns its own caller alone, and so does the
        ValueError of a batch that does not fit; the others' batches run again without it.
        """
        queue, thread = self._own_queue(), threading.get_ident()
        if thread in queue.inside:
            # A signal handler or a callback of this thread's own call: its turn may be just what it interrupts.
            if queue.inside[thread] is Within.WORK:
                raise RuntimeError(FROM_INSIDE)
            return self._run(batch, poll)
        try:
            queue.inside[thread] = Within.BATCH
            if batch.tokens <= SMALL_TOKENS:
                return self._run_small(queue, batch, poll)
            return self._run_large(queue, batch, poll)
        finally:
            queue.inside.pop(thread, None)

    def alone(self, work: Callable[[], T]) -> T:
        """What `work` returns, done in a turn of its own: no batch runs meanwhile.

        Raises:
            RuntimeError: it is asked for from inside a call of this thread, by a signal handler or a callback, whose
                batch may be running; or a batch is, from inside `work`.
        """
        queue, thread, done = self._own_queue(), threading.get_ident(), list[T]()
        if thread in queue.inside:
            raise RuntimeError(FROM_INSIDE)
        try:
            queue.inside[thread] = Within.WORK
            queue.take_turn(_Caller(None), lambda: done.append(work()))
        finally:
            queue.inside.pop(thread, None)
        return done[0]

    def _own_queue(self) -> _Queue:
        """This process's: after a fork, the callers of the parent's will never leave."""
        if self._queue.process != os.getpid():
            self._queue = _Queue()
        return self._queue

    def _run_small(self, queue: _Queue, batch: PackedBatch, poll: Poll | None) -> Pooled:
        caller = _Caller(batch)
        queue.take_turn(caller, lambda: self._lead(queue, caller, batch, poll))
        assert caller.pooled is not None
        return caller.pooled

    def _lead(self, queue: _Queue, caller: _Caller, batch: PackedBatch, poll: Poll | None) -> None:
        """Run a batch with those that wait behind it. They keep their places until they have what they wait for."""
        others = queue.like(batch, TOGETHER_TOKENS - batch.tokens)
        if not others:
            caller.pooled = self._run(batch, poll)
            return
        batches = [batch, *(other.batch for other in others if other.batch is not None)]
        asked = False

        def own_poll(tokens: int) -> None:
            nonlocal asked
            asked = True
            if poll is not None:
                poll(min(tokens, batch.tokens))

        try:
            results = shares(self._run(joined(batches), own_poll), batches)
        except ValueError:
            if asked:  # no batch is refused after it began
                raise
            caller.pooled = self._run(batch, poll)
            return
        caller.pooled = next(results)
        for other, pooled in zip(others, results, strict=True):
            queue.serve(other, pooled)

    def _run_large(self, queue: _Queue, batch: PackedBatch, poll: Poll | None) -> Pooled:
        """Run a batch in parts, each in a turn of its own."""
        cut = Cut(batch)

        def run_part() -> None:
            end = cut.next_segment(self._part_tokens * queue.next_growth())
            cut.add(end, self._run(cut.part(end), cut.shifted(poll)))

        while not cut.done:
            queue.take_turn(_Caller(None), run_part)
        return cut.pooled


class _Caller:
    """Someone who waits for a turn; `batch` is what others may run along, `pooled` what came of it."""

    __slots__ = ("batch", "gate", "has_turn", "pooled")

    def __init__(self, batch: PackedBatch | None) -> None:
        self.batch = batch
        self.pooled: Pooled | None = None
        self.has_turn = False
        self.gate = threading.Lock()  # open once there is a turn or a result
        self.gate.acquire()


class _Queue:
    """The callers of one process, first come, first served.

    A signal handler may raise between any two calls, so that each step which others wait for ends in a single one, that
    of `release`, and whatever comes before it can be left out.
    """

    def __init__(self) -> None:
        self.process = os.getpid()
        self.inside: dict[int, Within] = {}  # threads with a call under way, and of what
        self._guard = threading.Lock()
        self._taken = False
        self._waiting: deque[_Caller] = deque()
        self._crowded = False  # whether somebody had to wait since the last part of a large batch
        self._growth = GROWTH

    def next_growth(self) -> int:
        """How much larger than the smallest the next part of a large batch is: the more, the longer nobody waited."""
        self._growth = 1 if self._crowded else min(2 * self._growth, GROWTH)
        self._crowded = False
        return self._growth

    def take_turn(self, caller: _Caller, work: Callable[[], None]) -> None:
        """Do the work when it is the caller's turn, or nothing if another one serves it before."""
        try:
            with self._guard:
                if self._taken:
                    self._crowded = True
                    self._waiting.append(caller)
                else:
                    self._taken = caller.has_turn = True
            if not caller.has_turn:
                caller.gate.acquire()
            if caller.has_turn:
                work()
        finally:
            with self._guard:
                if caller.has_turn and self._waiting:
                    following = self._waiting[0]
                    del self._waiting[0]
                    following.has_turn = True
                    following.gate.release()
                elif caller.has_turn:
                    self._taken = False
                elif caller in self._waiting:  # interrupted
                    self._waiting.remove(caller)

    def like(self, batch: PackedBatch, tokens: int) -> list[_Caller]:
        """Those who wait with batches for the same task, as many as have so many tokens together."""
        found: list[_Caller] = []
        with self._guard:
            for caller in self._waiting:
                other = caller.batch
                if other is not None and other.task == batch.task and other.tokens <= tokens:
                    tokens -= other.tokens
                    found.append(caller)
        return found

    def serve(self, caller: _Caller, pooled: Pooled) -> None:
        """Let a waiting caller go with its result, if it still waits."""
        with self._guard:
            if caller in self._waiting:
                place = self._waiting.index(caller)
                del self._waiting[place]
                caller.pooled = pooled
                caller.gate.release()
