"""A run is told to stop, and tells how far it is, from within long instructions too; all threads leave at one place."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from longspan import _csrc
from longspan.batch import PackedBatch
from longspan.executors.cpu import CpuExecutor
from longspan.program.instructions import Embed, Instruction, Linear, Pool
from longspan.program.operands import Buffer, Rows
from longspan.program.program import Program

from ..ops.harness import SCHEDULES, Case, Schedule, batch_of, tokens_buffer
from ..ops.test_attention import block
from ..ops.test_extremes import whole
from ..ops.test_mlp import mlp

WIDTH, VOCABULARY = 32, 50


def executor_of(make: Callable[[Case, Buffer], list[Instruction]], threads: int, isa: str = "generic") -> CpuExecutor:
    """A body that embeds, runs what is made, and pools."""
    case, x, out = Case(), tokens_buffer("x", WIDTH), Buffer("pooled", Rows.PARTIALS, WIDTH)
    embed = Embed(stage=0, out=x, tokens=case.weight("tokens", VOCABULARY, WIDTH))
    body = Program("test", (embed, *make(case, x), Pool(stage=2, x=x, out=out, kind="sum", index=0)), (out,))
    return CpuExecutor(body, case.tensors, threads=threads, isa=isa)


def attend(case: Case, x: Buffer) -> list[Instruction]:
    qkv, attention = block(x, case.weight("qkv", 3 * WIDTH, WIDTH), None, 1, 1, WIDTH)
    return [qkv, attention, Linear(stage=1, x=attention.out, out=x, weight=case.weight("o", WIDTH, WIDTH), residual=x)]


def long_text(tokens: int) -> PackedBatch:
    return batch_of([tokens], ids=np.arange(tokens) % VOCABULARY, partials=[whole([tokens])])


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("threads", [1, 2])
def test_within_one_attention(threads: int, schedule: Schedule) -> None:
    """It is asked several times in each run that lasts, however fast the machine, and heeds the answer."""
    executor, told, batch = executor_of(attend, threads), list[int](), long_text(4000)
    while len(told) < 6 and batch.tokens < 300_000:
        told.clear()
        batch = long_text(2 * batch.tokens)
        (expected,) = executor.run_body(batch, schedule=schedule, poll=told.append)
    assert len(told) > len(set(told)), "it was not asked twice in any instruction"
    assert told == sorted(told)
    assert told[0] < told[-1] + 1 <= batch.tokens + 1

    def stop(tokens: int) -> None:
        raise KeyError(tokens)

    with pytest.raises(KeyError) as caught:
        executor.run_body(batch, schedule=schedule, poll=stop)
    assert caught.value.args[0] < batch.tokens
    (again,) = executor.run_body(batch, schedule=schedule)
    assert again.tobytes() == expected.tobytes()


def test_among_packs_without_tokens() -> None:
    """Some instructions have nothing to do there and meet at no barrier: threads told to stop would miss each other."""

    def make(case: Case, x: Buffer) -> list[Instruction]:
        return [mlp(case, x, x, 24)] * 100

    executor: Any = executor_of(make, 2)
    failures: list[BaseException] = []
    program, packs = executor._program, 20_000

    def stop(tokens: int) -> None:
        raise KeyError(tokens)

    class Empty:
        """Passes on a run with all of its packs empty and shared."""

        def run_body(self, **arguments: Any) -> Any:
            numbers = np.arange(packs + 1, dtype=np.int64)
            arguments |= {"cu_seqlens": 0 * numbers, "pack_segments": numbers, "pack_order": numbers[:-1]}
            return program.run_body(**{**arguments, "shared_packs": packs, "poll": stop})

    def run() -> None:
        executor._program = Empty()
        for _ in range(10):
            try:
                executor.run_body(batch_of([], partials=[whole([])]), schedule="shared")
            except KeyError:
                pass
            except BaseException as failure:
                failures.append(failure)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert not failures


def test_changes_wait_for_the_run() -> None:
    """Of a program that another thread runs; inside its own run, where the wait would have no end, they are refused."""
    executor: Any = executor_of(attend, 2)
    program, batch, waited = executor._program, long_text(4000), list[bool]()
    (expected,) = executor.run_body(long_text(100))
    changes: list[Callable[[], Any]] = [
        lambda: program.attend_in_int8(False),
        program.watched,
        lambda: program.add("pool", {"stage": 0}),  # refused, when it is its turn
        lambda: program.take(program_like(executor)),
    ]

    def change(one: Callable[[], Any]) -> None:
        with contextlib.suppress(ValueError):
            one()

    threads = [threading.Thread(target=change, args=(one,), daemon=True) for one in changes]

    def poll(_: int) -> None:
        if not waited:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(0.05)
                waited.append(thread.is_alive())
            for one in changes:
                with pytest.raises(RuntimeError, match="called from inside a running call"):
                    one()

    while not waited and batch.tokens < 300_000:
        batch = long_text(2 * batch.tokens)
        executor.run_body(batch, poll=poll)
    assert waited == [True] * len(changes)
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    (again,) = executor.run_body(long_text(100))
    assert again.tobytes() == expected.tobytes()


def program_like(executor: CpuExecutor) -> _csrc.Program:
    """A program without instructions over the buffers of an executor's body."""
    buffers = [(buffer.rows.value, buffer.width, buffer.dtype) for buffer in executor.body.buffers]
    return _csrc.Program(buffers, -1, executor.isa)
