"""Low-rank pairs, one a task, which weights gain for a batch of that task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

import pytest

from longspan.batch import PackedBatch
from longspan.program.instructions import Activation, Embed, Instruction, Linear, Mlp
from longspan.program.operands import Buffer, LowRank, Rows

from .harness import (
    TILE_EDGES,
    Case,
    assert_same_bits,
    batch_of,
    batches_of,
    cpu_executor,
    every_tier,
    executors_of,
    pooled_by_row,
    run_cpu,
    tokens_buffer,
)
from .test_attention import block

TASKS = 3
WIDTH, INNER = 72, 264


def of_tasks(batches: Sequence[PackedBatch]) -> list[PackedBatch]:
    """Each batch for the first and for the last task."""
    return [replace(batch, task=task) for batch in batches for task in (0, TASKS - 1)]


def linear(case: Case, inner: int, outer: int, rank: int = 4, dtype: str = "F32", **more: Any) -> Linear:
    """A `linear` with pairs; `more` are its other fields."""
    return Linear(
        stage=1,
        x=case.rows("x", inner),
        out=tokens_buffer("out", outer),
        ranks=tokens_buffer("ranks", rank),
        weight=case.weight("w", outer, inner),
        low_rank=case.low_rank("w", outer, inner, rank, TASKS, dtype),
        **more,
    )


def mlp(case: Case, x: Buffer, out: Buffer, adapted: Sequence[str], *, gate: bool = False) -> Mlp:
    """An `mlp`, whose weights named in `adapted` have pairs."""
    shapes = {"up": (INNER, x.width), "down": (out.width, INNER), **({"gate": (INNER, x.width)} if gate else {})}
    fields: dict[str, Any] = {name: case.weight(name, *shape) for name, shape in shapes.items()}
    fields |= {f"{name}_bias": case.weight(f"{name}.bias", shape[0]) for name, shape in shapes.items()}
    fields |= {f"{name}_low_rank": case.low_rank(name, *shapes[name]) for name in adapted}
    hidden, ranks = Buffer("hidden", Rows.TILE, INNER), Buffer("tile_ranks", Rows.TILE, 4)
    return Mlp(stage=1, x=x, out=out, hidden=hidden, ranks=ranks, activation="gelu", residual=x, **fields)


@every_tier
@pytest.mark.parametrize("rank", [1, 4, 8, 17, 300])
def test_ranks(isa: str, rank: int) -> None:
    case = Case(rank)
    op = linear(case, 72, 40, rank)
    case.check(op, outputs=[op.out], batches=of_tasks(batches_of(0, 1, 13, 97)), isa=isa)


@every_tier
@pytest.mark.parametrize(("inner", "outer"), [(8, 24), (255, 40), (256, 264), (300, 257), (520, 520)])
def test_shapes(isa: str, inner: int, outer: int) -> None:
    case = Case(inner)
    op = linear(case, inner, outer)
    batches = [replace(batch, task=1) for batch in (*batches_of(*TILE_EDGES), batch_of([50, 0, 1, 49]))]
    case.check(op, outputs=[op.out], batches=batches, isa=isa)


@every_tier
@pytest.mark.parametrize("activation", get_args(Activation))
def test_before_bias_and_activation(isa: str, activation: Activation) -> None:
    case = Case(1)
    factor, residual = case.rows("factor", 40), case.rows("residual", 40)
    op = linear(case, 72, 40, bias=case.weight("b", 40), activation=activation, factor=factor, residual=residual)
    case.check(op, outputs=[op.out], batches=of_tasks(batches_of(13, 97)), isa=isa)


@every_tier
@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_dtypes(isa: str, dtype: str) -> None:
    case = Case(2)
    op = linear(case, 72, 40, dtype=dtype)
    case.check(op, outputs=[op.out], batches=of_tasks(batches_of(13)), isa=isa)


@every_tier
@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(1, 1, 8), (4, 2, 24), (2, 2, 64)])
def test_qkv(isa: str, heads: int, kv_heads: int, size: int) -> None:
    case = Case(size)
    columns = (heads + 2 * kv_heads) * size
    x, weight, bias = case.rows("x", WIDTH), case.weight("w", columns, WIDTH), case.weight("b", columns)
    qkv, attention = block(x, weight, bias, heads, kv_heads, size)
    qkv = replace(qkv, ranks=tokens_buffer("ranks", 4), low_rank=case.low_rank("w", columns, WIDTH))
    segments = [[], [1], [1, 2, 3, 17, 64, 65]]
    case.check(qkv, attention, outputs=[attention.out], batches=of_tasks([batch_of(n) for n in segments]), isa=isa)


@every_tier
@pytest.mark.parametrize("adapted", [("up",), ("down",), ("up", "down"), ("gate",), ("gate", "up", "down")])
def test_mlp(isa: str, adapted: tuple[str, ...]) -> None:
    case = Case(3)
    x = case.rows("x", WIDTH)
    op = mlp(case, x, x, adapted, gate="gate" in adapted)
    case.check(op, outputs=[x], batches=of_tasks(batches_of(0, 1, 13, 97)), isa=isa)


@every_tier
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("width", [8, 40, 255])
def test_embed(isa: str, width: int, dtype: str) -> None:
    case = Case(width)
    op = Embed(
        stage=0,
        out=tokens_buffer("out", width),
        tokens=case.weight("tokens", 50, width, dtype=dtype),
        tokens_low_rank=case.low_rank("tokens", 50, width, dtype=dtype),
        scale=1.5,
        positions=case.weight("positions", 50, width),
        types=case.weight("types", 2, width),
        types_low_rank=case.low_rank("types", 2, width, 5),
    )
    batch = batch_of([49], ids=case.rng.integers(0, 50, 49))
    case.check(op, outputs=[op.out], batches=of_tasks([batch]), isa=isa)


@every_tier
def test_nothing_is_added_without_a_task(isa: str) -> None:
    """The same bits as without pairs."""
    case = Case(4)
    op = linear(case, WIDTH, INNER)
    adapted, plain = (bound(case, step, isa=isa) for step in (op, replace(op, ranks=None, low_rank=None)))
    results = [executor.run_body(batch) for executor, batch in (adapted, plain)]
    assert_same_bits(results[0], results[1], "with and without pairs")


@every_tier
def test_tasks_differ(isa: str) -> None:
    case = Case(5)
    op = linear(case, WIDTH, INNER)
    body, batch = pooled_by_row(case.program(op, outputs=[op.out]), batches_of(5)[0])
    executors = executors_of(body, case.tensors, isa)
    found = {}
    for task in (None, *range(TASKS)):
        found[task] = next(run_cpu(executors, replace(batch, task=task)))[1][0]
    pairs = [(a, b) for a in found for b in found if a != b]
    assert all(abs(found[a] - found[b]).max() > 0.1 for a, b in pairs)


def bound(case: Case, *steps: Instruction, isa: str = "generic") -> tuple[Any, PackedBatch]:
    """An executor of the instructions, and a batch for it."""
    body, batch = pooled_by_row(case.program(*steps, outputs=[steps[-1].writes[0]]), batches_of(5)[0])
    return cpu_executor(body, case.tensors, threads=1, isa=isa), batch


@pytest.mark.parametrize("task", [-2, 3, 100])
def test_no_such_task(task: int) -> None:
    case = Case(6)
    executor, batch = bound(case, linear(case, 8, 8))
    with pytest.raises(ValueError, match=f"there is no task {task}"):
        executor.run_body(replace(batch, task=task))


def test_a_program_without_pairs_knows_no_task() -> None:
    case = Case(7)
    executor, batch = bound(case, replace(linear(case, 8, 8), ranks=None, low_rank=None))
    with pytest.raises(ValueError, match="there is no task 0"):
        executor.run_body(replace(batch, task=0))


def wrong(case: Case, **changes: Any) -> LowRank:
    """Pairs for a weight [8, 8], some of whose fields are others'."""
    return replace(case.low_rank("pair", 8, 8), **changes)


def test_wrong_pairs_are_refused() -> None:
    case = Case(8)
    op = linear(case, 8, 8)
    other = case.low_rank("other", 8, 8, tasks=2)
    cases: dict[str, Instruction] = {
        "left has 24 rows, expected 16": replace(op, low_rank=wrong(case, tasks=2)),
        "left has 16 rows, expected 24": replace(op, low_rank=wrong(case, left=other.left)),
        "right has 8 rows, expected 12": replace(op, low_rank=wrong(case, right=other.right)),
        "low_rank needs a buffer ranks of its rank": replace(op, ranks=None),
        "low_rank needs a buffer": replace(op, ranks=tokens_buffer("ranks", 5)),
        "tokens_low_rank needs a row a task": Embed(
            stage=0, out=op.out, tokens=case.weight("t", 9, 8), tokens_low_rank=case.low_rank("t", 8, 8)
        ),
    }
    for message, step in cases.items():
        with pytest.raises(ValueError, match=message):
            bound(case, step)


def test_all_pairs_of_a_program_are_for_the_same_tasks() -> None:
    case = Case(9)
    op = linear(case, 8, 8)
    other = replace(op, low_rank=case.low_rank("other", 8, 8, tasks=2))
    with pytest.raises(ValueError, match="low_rank is for another number of tasks than those before it"):
        bound(case, op, other)
