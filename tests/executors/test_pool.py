"""The pool of threads under several callers at once; `make sanitize` runs this with the thread sanitiser."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from longspan import _csrc
from longspan.batch import Float32
from longspan.executors.cpu import CpuExecutor
from longspan.program.instructions import Attention, Mlp, Norm, Pool, Qkv
from longspan.program.operands import Buffer, Rows
from longspan.program.program import Program

from ..ops.harness import SCHEDULES, Case, Schedule, batch_of, tokens_buffer

WIDTH, HEADS, SIZE = 48, 3, 16
CALLERS, ROUNDS = 4, 5
SEGMENTS: tuple[list[int], ...] = ([3, 0, 7, 1], [40] * 6, [130, 257], [])
THREADS = (1, 2, 3)


class Model:
    """One layer in executors of 1, 2 and 3 threads, and what it gives for each batch and schedule."""

    def __init__(self) -> None:
        case = Case(1)
        q, k, v, context = (tokens_buffer(name, WIDTH) for name in ("q", "k", "v", "context"))
        x = case.rows("x", WIDTH)
        heads: dict[str, Any] = {"heads": HEADS, "kv_heads": HEADS, "head_size": SIZE}
        layer = (
            Qkv(stage=1, x=x, q=q, k=k, v=v, weight=case.weight("qkv", 3 * WIDTH, WIDTH), **heads),
            Attention(stage=1, q=q, k=k, v=v, out=context, scale=SIZE**-0.5, **heads),
            Mlp(
                stage=1,
                x=context,
                out=x,
                hidden=Buffer("hidden", Rows.TILE, 96),
                up=case.weight("up", 96, WIDTH),
                down=case.weight("down", WIDTH, 96),
                activation="gelu",
                residual=x,
            ),
            Norm(stage=1, x=x, out=x, weight=case.weight("norm", WIDTH), eps=1e-5),
        )
        pooled = Buffer("pooled", Rows.PARTIALS, WIDTH)
        pool = Pool(stage=2, x=x, out=pooled, kind="sum", index=0)
        body = Program("pool", (*case.program(outputs=[x]).instructions, *layer, pool), (pooled,))
        self._executors = {threads: CpuExecutor(body, case.tensors, threads=threads) for threads in THREADS}
        self._batches = [batch_of(segments) for segments in SEGMENTS]
        self._expected = [self._run(1, index, "packs") for index in range(len(SEGMENTS))]

    def _run(self, threads: int, index: int, schedule: Schedule) -> Float32:
        (rows,) = self._executors[threads].run_body(self._batches[index], schedule=schedule)
        return rows

    def check(self, seed: int, threads: tuple[int, ...] = THREADS) -> None:
        """Assert that every batch comes out as ever, by all schedules and these numbers of threads, in any order."""
        ways = [(n, index, how) for n in threads for index in range(len(SEGMENTS)) for how in SCHEDULES]
        for n, index, how in np.random.default_rng(seed).permutation(np.array(ways, object)):
            assert self._run(n, index, how).tobytes() == self._expected[index].tobytes()


@pytest.fixture(scope="module")
def model() -> Model:
    return Model()


def at_once(*works: Callable[[], None]) -> None:
    """Run all of them, each in a thread of its own; the first failure is raised."""
    failures: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def repeat(model: Model, caller: int, threads: tuple[int, ...] = THREADS) -> Callable[[], None]:
    def work() -> None:
        for round_ in range(ROUNDS):
            model.check(caller * ROUNDS + round_, threads)

    return work


def test_callers_of_all_sizes(model: Model) -> None:
    """Callers that want 1, 2 and 3 threads take turns, on the same programs."""
    at_once(*(repeat(model, caller) for caller in range(CALLERS)))


def test_callers_of_one_thread(model: Model) -> None:
    at_once(*(repeat(model, caller, threads=(1,)) for caller in range(CALLERS)))


def test_scores_beside_a_body(model: Model) -> None:
    """Other work of the same pool."""
    vectors = np.random.default_rng(0).standard_normal((300, WIDTH), dtype=np.float32)
    expected = _csrc.scores(vectors, vectors, "cosine", 1, _csrc.tiers()[-1]).tobytes()

    def score() -> None:
        for _ in range(10 * ROUNDS):
            assert _csrc.scores(vectors, vectors, "cosine", 3, _csrc.tiers()[-1]).tobytes() == expected

    at_once(repeat(model, 0), score, score)


def test_fork_while_others_run(model: Model) -> None:
    """A forked child has none of the workers, and locks that nobody will release; it starts anew."""
    stop = threading.Event()

    def keep_busy() -> None:
        while not stop.is_set():
            model.check(0)

    def fork() -> None:
        try:
            for _ in range(5):
                child = os.fork()
                if child == 0:
                    signal.alarm(60)
                    status = 3
                    try:
                        at_once(lambda: model.check(1), lambda: model.check(2))
                        status = 0
                    finally:
                        os._exit(status)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        finally:
            stop.set()

    at_once(keep_busy, keep_busy, fork)
