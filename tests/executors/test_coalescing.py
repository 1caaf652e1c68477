"""Callers take turns, small batches run as one, and what happens to a caller happens to it alone."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan import Encoder, InputError
from longspan.batch import PackedBatch, Partials
from longspan.executors.coalescing import GROWTH, SMALL_TOKENS, TOGETHER_TOKENS, Coalescer
from longspan.executors.joining import Pooled

from ..ops.harness import batch_of

BAD = 666
"""A token that the model of these tests refuses."""

PART = 1000


def sums(batch: PackedBatch) -> Pooled:
    """The sum of the ids of each partial's rows, as float32 [P, 2]; a ValueError where a token is bad."""
    if (batch.ids == BAD).any():
        raise ValueError("a bad token")
    assert len(batch.positions) == batch.tokens == batch.cu_seqlens[-1]
    assert not batch.tokens or int(batch.positions.max()) < int(np.diff(batch.cu_seqlens).max())
    found = []
    for index, partials in enumerate(batch.partials):
        rows = zip(partials.starts, partials.ends, partials.first_weight, strict=True)
        values = [[batch.ids[a:b].sum() * weight, index] for a, b, weight in rows]
        found.append(np.array(values, np.float32).reshape(-1, 2))
    return tuple(found)


def a_batch(*lengths: int, seed: int = 0, task: int | None = None, bad: bool = False) -> PackedBatch:
    """Random tokens; pooled are all segments from the last to the first, and each one's last row."""
    random = np.random.default_rng((seed, *lengths))
    bounds = np.cumsum([0, *lengths], dtype=np.int64)
    filled = np.flatnonzero(np.diff(bounds))[::-1]
    begins, ends = bounds[:-1][filled], bounds[1:][filled]
    weights = random.integers(1, 9, len(filled)).astype(np.float32)
    vectors = np.arange(len(filled) + 1, dtype=np.int64)
    partials = [Partials(starts, ends, weights, 0 * weights, vectors) for starts in (begins, ends - 1)]
    ids = random.integers(0, 500, int(bounds[-1]))
    if bad:
        ids[0] = BAD
    batch = batch_of(lengths, ids=ids, partials=partials)
    return PackedBatch(batch.ids, batch.positions, batch.cu_seqlens, batch.partials, task)


def assert_pooled(found: Pooled, batch: PackedBatch) -> None:
    for ours, expected in zip(found, sums(batch), strict=True):
        np.testing.assert_array_equal(ours, expected)


class Machine:
    """Runs batches one at a time; the first of them waits until it is let go. `runs` are the tokens of each."""

    def __init__(self) -> None:
        self.runs: list[int] = []
        self.begun, self.go = threading.Event(), threading.Event()
        self.coalescer = Coalescer(self._run, part_tokens=PART)
        self._alone = threading.Lock()

    def _run(self, batch: PackedBatch, poll: Callable[[int], None] | None) -> Pooled:
        assert self._alone.acquire(blocking=False), "two at a time"
        try:
            self.runs.append(batch.tokens)
            self.begun.set()
            assert self.go.wait(30)
            pooled = sums(batch)
            if poll is not None:
                poll(batch.tokens)
            return pooled
        finally:
            self._alone.release()

    def waiting(self) -> int:
        return len(self.coalescer._queue._waiting)


class Call(threading.Thread):
    """One caller: what it got, or what was raised."""

    def __init__(self, machine: Machine, batch: PackedBatch, poll: Callable[[int], None] | None = None) -> None:
        super().__init__(daemon=True)
        self.result: Pooled | None = None
        self.error: BaseException | None = None
        self._work: Callable[[], Pooled] = lambda: machine.coalescer.run(batch, poll)
        self.batch = batch
        self.start()

    def run(self) -> None:
        try:
            self.result = self._work()
        except BaseException as error:
            self.error = error

    def check(self) -> None:
        """Assert that it got what belongs to it."""
        self.join(30)
        assert self.error is None
        assert self.result is not None
        assert_pooled(self.result, self.batch)


@pytest.fixture
def machine() -> Iterator[Machine]:
    """With a first caller at work."""
    machine = Machine()
    first = Call(machine, a_batch(5))
    assert machine.begun.wait(30)
    yield machine
    machine.go.set()
    first.check()


def queued(machine: Machine, *batches: PackedBatch, poll: Callable[[int], None] | None = None) -> list[Call]:
    """Callers that wait, in this order."""
    calls = []
    before = machine.waiting()
    for batch in batches:
        calls.append(Call(machine, batch, poll))
        until(lambda: machine.waiting() == before + len(calls))
    return calls


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


lengths = st.lists(st.integers(0, 700), max_size=12)


@given(lengths)
def test_a_single_caller(segments: list[int]) -> None:
    """Batches of all sizes come out as without a coalescer, and large ones in parts."""
    machine = Machine()
    machine.go.set()
    batch, told = a_batch(*segments), [0]
    assert_pooled(machine.coalescer.run(batch, told.append), batch)
    assert sum(machine.runs) == batch.tokens
    assert told == sorted(told)
    assert told[-1] == batch.tokens
    assert max(machine.runs) <= 1.5 * GROWTH * PART + 700


def test_small_batches_run_as_one(machine: Machine) -> None:
    calls = queued(machine, *(a_batch(n, 0, 3, seed=n) for n in range(6)), a_batch(), a_batch(0))
    machine.go.set()
    for call in calls:
        call.check()
    assert machine.runs == [5, sum(n + 3 for n in range(6))]


def test_no_more_than_fit(machine: Machine) -> None:
    calls = queued(machine, *(a_batch(SMALL_TOKENS, seed=n) for n in range(5)), a_batch(7))
    machine.go.set()
    for call in calls:
        call.check()
    assert machine.runs == [5, TOGETHER_TOKENS, SMALL_TOKENS + 7]


def test_one_task_at_a_time(machine: Machine) -> None:
    calls = queued(machine, *(a_batch(10 + n, task=task) for n, task in enumerate((0, None, 0, 1, None))))
    machine.go.set()
    for call in calls:
        call.check()
    assert machine.runs == [5, 10 + 12, 11 + 14, 13]


def test_small_ones_come_between_the_parts_of_large_ones(machine: Machine) -> None:
    large = queued(machine, a_batch(*[500] * 6), a_batch(*[400] * 6))
    small = queued(machine, a_batch(1), a_batch(2))
    machine.go.set()
    for call in large + small:
        call.check()
    assert machine.runs[:4] == [5, 1000, 800, 3]
    assert sum(machine.runs) == 5 + 3000 + 2400 + 3


def test_parts_are_small_after_somebody_had_to_wait(machine: Machine) -> None:
    (large,) = queued(machine, a_batch(*[100] * 400))
    machine.go.set()
    large.check()
    assert machine.runs == [5, 1000, 2000, *[4000] * 8, 5000]
    large = Call(machine, a_batch(*[100] * 200))  # nobody since
    large.check()
    assert machine.runs[12:] == [4000] * 5


def test_a_bad_batch_hurts_its_own_caller(machine: Machine) -> None:
    calls = queued(machine, a_batch(4), a_batch(3, bad=True), a_batch(6), a_batch(2, bad=True), a_batch(9))
    machine.go.set()
    for call in calls:
        call.join(30)
    for index in (0, 2, 4):
        calls[index].check()
    assert [str(calls[index].error) for index in (1, 3)] == ["a bad token"] * 2


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
def test_what_poll_raises_ends_its_own_call(machine: Machine, kind: type[BaseException]) -> None:
    def poll(tokens: int) -> None:
        raise kind(tokens)

    (stopped,) = queued(machine, a_batch(8), poll=poll)
    others = queued(machine, a_batch(4), a_batch(6))
    machine.go.set()
    for call in others:
        call.check()
    stopped.join(30)
    assert isinstance(stopped.error, kind)
    assert stopped.error.args == (8,)  # its own tokens, not those that it took along
    assert machine.runs == [5, 18, 10]


@pytest.mark.parametrize("tokens", [7, 5000])
def test_ctrl_c_while_waiting(machine: Machine, tokens: int) -> None:
    """A caller leaves the queue, and the others behind it go on."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    behind: list[Call] = []

    def wait_behind() -> None:
        until(lambda: machine.waiting() == 1)
        behind.extend(queued(machine, a_batch(3), a_batch(4)))
        os.kill(os.getpid(), signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, interrupt)
    helper = threading.Thread(target=wait_behind)
    helper.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            machine.coalescer.run(a_batch(tokens), None)
    finally:
        signal.signal(signal.SIGALRM, before)
    helper.join()
    assert machine.waiting() == 2
    machine.go.set()
    for call in behind:
        call.check()
    assert machine.runs == [5, 7]


def test_a_callback_that_calls_does_not_wait_for_itself() -> None:
    def run(batch: PackedBatch, poll: Callable[[int], None] | None) -> Pooled:
        if poll is not None:
            poll(0)
        return sums(batch)

    coalescer, inner, outer = Coalescer(run, part_tokens=PART), a_batch(3), a_batch(4)
    assert_pooled(coalescer.run(outer, lambda _: assert_pooled(coalescer.run(inner, None), inner)), outer)


def test_work_that_runs_alone_is_refused_inside_a_call() -> None:
    """It would wait for the turn that it interrupts, or change what a batch is running through."""

    def run(batch: PackedBatch, poll: Callable[[int], None] | None) -> Pooled:
        if poll is not None:
            poll(0)
        return sums(batch)

    coalescer = Coalescer(run, part_tokens=PART)

    def alone(_: int) -> None:
        coalescer.alone(lambda: None)

    for tokens in (4, 5000):
        with pytest.raises(RuntimeError, match="called from inside a running call"):
            coalescer.run(a_batch(tokens), alone)
    for inside in (lambda: coalescer.run(a_batch(4), None), lambda: coalescer.alone(lambda: 1)):
        with pytest.raises(RuntimeError, match="called from inside a running call"):
            coalescer.alone(inside)
    assert coalescer.alone(lambda: 1) == 1
    assert_pooled(coalescer.run(a_batch(4), None), a_batch(4))


def test_fork_while_others_wait(machine: Machine) -> None:
    calls = queued(machine, a_batch(4), a_batch(5000))
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        status = 3
        try:
            machine._alone, machine.go = threading.Lock(), threading.Event()
            machine.go.set()
            for batch in (a_batch(2), a_batch(*[500] * 9)):
                assert_pooled(machine.coalescer.run(batch, None), batch)
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    machine.go.set()
    for call in calls:
        call.check()


# --- encoders ---------------------------------------------------------------------------------------------------------

SENTENCES = [" ".join(["the cat sat on the mat"] * n) + f" {n}" for n in (1, 2, 5, 30)]


def test_encoders_give_the_same_bits_as_alone(small: Path) -> None:
    """Queries, documents in windows, token matrices and calls that fail, all at the same time."""
    encoder = Encoder(small, threads=2, long_text="error", max_seq_length=256)
    calls: list[Callable[[], Any]] = [partial(encoder.encode, text) for text in SENTENCES]
    calls += [
        lambda: encoder.encode(SENTENCES * 100),
        lambda: encoder.encode(SENTENCES[0], output_value="token_embeddings"),
        lambda: encoder.encode_chunks(SENTENCES[3], chunk_tokens=16).vectors,
    ]
    expected = [np.asarray(call()).tobytes() for call in calls]
    failures: list[object] = []

    def work(seed: int) -> None:
        try:
            for index in np.random.default_rng(seed).integers(0, len(calls), 40):
                if np.asarray(calls[index]()).tobytes() != expected[index]:
                    failures.append(index)
                with pytest.raises(InputError, match="only 254 fit"):
                    encoder.encode("word " * 300)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
