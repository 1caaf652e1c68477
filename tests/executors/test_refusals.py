"""What `_csrc` refuses: arrays that kernels could not read where they lie, and batches that leave their buffers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from longspan import _csrc
from longspan.executors.ways import Way
from longspan.program.instructions import Embed, Pool
from longspan.program.operands import Buffer, Rows
from longspan.program.program import Program

from ..ops.harness import Case, batch_of, cpu_executor, floats, tokens_buffer

WIDTH, ROWS = 8, 10
Arguments = dict[str, Any]


@pytest.fixture(scope="module")
def run() -> tuple[Any, Arguments]:
    """A bound program that embeds and pools, and good arguments for its `run_body`."""
    case = Case()
    x, out = tokens_buffer("x", WIDTH), Buffer("out", Rows.PARTIALS, WIDTH)
    embed = Embed(stage=0, out=x, tokens=case.weight("tokens", ROWS, WIDTH))
    body = Program("test", (embed, Pool(stage=1, x=x, out=out, kind="sum", index=0)), (out,))
    executor: Any = cpu_executor(body, case.tensors, threads=2, isa="generic")
    found: Arguments = {}
    program = executor._program
    executor._program = SimpleNamespace(run_body=lambda **arguments: found.update(arguments) or [])
    executor.run_body(batch_of([3, 2, 4]), schedule="packs", pack_tokens=4)  # three packs
    return program, found


def with_(arguments: Arguments, name: str, value: Any) -> Arguments:
    return {**arguments, name: value}


def misaligned(array: Any) -> Any:
    """The same numbers at an odd address."""
    memory = np.zeros(array.nbytes + 1, np.uint8)
    copy = memory[1:].view(array.dtype) if array.size else array
    copy[...] = array.ravel()
    return copy.reshape(array.shape)


def strided(array: Any) -> Any:
    """The same numbers with gaps."""
    return np.repeat(array, 2, axis=0)[::2]


def other_type(array: Any) -> Any:
    return array.astype({"i": np.int16, "f": np.float64}[array.dtype.kind])


def other_order(array: Any) -> Any:
    return array.astype(array.dtype.newbyteorder(">"))


def listed(array: Any) -> Any:
    return array.tolist()


BREAKS = (misaligned, strided, other_type, other_order, listed)
"""What makes an array one that a kernel could not read."""

BROKEN: Mapping[str, Callable[[Arguments, Callable[[Any], Any]], Any]] = {
    "ids": lambda a, change: change(a["ids"]),
    "positions": lambda a, change: change(a["positions"]),
    "cu_seqlens": lambda a, change: change(a["cu_seqlens"]),
    "pack_segments": lambda a, change: change(a["pack_segments"]),
    "pack_order": lambda a, change: change(a["pack_order"]),
    "q_scales": lambda a, change: [change(np.ones(9, np.float32))],
    "partials": lambda a, change: [(*a["partials"][0][:2], change(a["partials"][0][2]), a["partials"][0][3])],
    "ropes": lambda a, change: [(change(np.zeros(9, np.int32)), np.ones((4, 8), np.float32))],
    "tile": lambda a, change: (change(a["tile"][0]), *a["tile"][1:]),
    "pack": lambda a, change: (change(a["pack"][0]), *a["pack"][1:]),
}
"""An argument with one array of it changed, by name."""


def test_good_arguments_are_good(run: tuple[Any, Arguments]) -> None:
    program, arguments = run
    assert program.run_body(**arguments)[0].shape == (9, WIDTH)


@pytest.mark.parametrize("change", BREAKS)
@pytest.mark.parametrize("name", BROKEN)
def test_arrays_that_cannot_be_read(run: tuple[Any, Arguments], name: str, change: Callable[[Any], Any]) -> None:
    program, arguments = run
    with pytest.raises((ValueError, TypeError)):
        program.run_body(**with_(arguments, name, BROKEN[name](arguments, change)))


LIMITS = {
    "ids": np.full(9, ROWS, np.int32),
    "ids below": np.full(9, -1, np.int32),
    "ids short": np.zeros(8, np.int32),
    "cu_seqlens": np.array([0, 3, 5, 10], np.int64),
    "cu_seqlens backwards": np.array([0, 5, 3, 9], np.int64),
    "cu_seqlens below": np.array([-1, 3, 5, 9], np.int64),
    "cu_seqlens empty": np.zeros(0, np.int64),
    "cu_seqlens matrix": np.zeros((2, 2), np.int64),
    "pack_segments": np.array([0, 4], np.int64),
    "pack_segments empty": np.zeros(0, np.int64),
    "pack_order": np.array([0, 1, 3], np.int64),
    "pack_order twice": np.array([0, 0, 2], np.int64),
    "pack_order short": np.array([0], np.int64),
    "shared_packs": 4,
    "shared_packs below": -1,
    "threads": 0,
    "task": 0,
    "partials": [],
    "tile": (np.zeros(2, np.int64), 0, 0),
    "pack": (np.zeros(2, np.int64), 2**40, 2**62),
    "pack bytes": (np.zeros(2, np.int64), 2**62, 64),
    "pack rows": (np.zeros(2, np.int64), 0, 2**62),
    "tile bytes": (np.zeros(2, np.int64), 2**62, 0),
    "pack offset": (np.array([64, 0], np.int64), 64 * WIDTH * 4, 64),
    "pack below": (np.array([-64, 0], np.int64), 2**20, 64),
    "pack unaligned": (np.array([4, 0], np.int64), 2**20, 64),
    "pack short": (np.zeros(1, np.int64), 2**20, 64),
    "shared": (np.zeros(2, np.int64), -64, -1),
}
"""Values that leave what there is: the argument, and for some of them in which way."""


@pytest.mark.parametrize("how", LIMITS)
def test_batches_that_leave_their_buffers(run: tuple[Any, Arguments], how: str) -> None:
    program, arguments = run
    with pytest.raises(ValueError, match=r"\w"):
        program.run_body(**with_(arguments, how.split()[0], LIMITS[how]))


@pytest.mark.parametrize(
    ("starts", "ends"),
    [([0], [4]), ([2], [4]), ([-1], [1]), ([9], [10]), ([3], [3]), ([2**62], [2**63 - 1]), ([0, 1], [1])],
)
def test_partials_that_leave_their_segment(run: tuple[Any, Arguments], starts: list[int], ends: list[int]) -> None:
    program, arguments = run
    ones = np.ones(len(starts), np.float32)
    partials = [(np.array(starts, np.int64), np.array(ends, np.int64), ones, 0 * ones)]
    with pytest.raises(ValueError, match="partial"):
        program.run_body(**with_(arguments, "partials", partials))


# Three packs of at most 64 tokens, which carry `x`.
CARRIED_BYTES = 3 * 64 * WIDTH * 4


def staging_of(rows: Any, places: Any = None, row_bytes: int = WIDTH * 4) -> Any:
    return np.array([0, -1], np.int64) if places is None else places, row_bytes, rows, None, 0


def test_rows_that_packs_carry(run: tuple[Any, Arguments]) -> None:
    program, arguments = run
    rows = aligned(np.zeros(CARRIED_BYTES, np.uint8))
    expected = program.run_body(**arguments)[0]
    np.testing.assert_array_equal(program.run_body(**with_(arguments, "staging", staging_of(rows)))[0], expected)
    kept = rows.view(np.float32).reshape(3, 64, WIDTH)
    np.testing.assert_array_equal(np.concatenate([kept[0, :3], kept[1, :2], kept[2, :4]]), expected)


@pytest.mark.parametrize("how", ["short", "misaligned", "read-only", "another type", "a list"])
def test_rows_that_packs_cannot_carry(run: tuple[Any, Arguments], how: str) -> None:
    program, arguments = run
    rows = aligned(np.zeros(CARRIED_BYTES, np.uint8))
    rows.setflags(write=how != "read-only")
    changed = {"short": rows[:-1], "misaligned": misaligned(rows), "another type": rows.view(np.int8), "a list": [0]}
    with pytest.raises(ValueError, match="carried rows"):
        program.run_body(**with_(arguments, "staging", staging_of(changed.get(how, rows))))
    with pytest.raises(ValueError, match="a carried buffer lies outside its pack's bytes"):
        program.run_body(**with_(arguments, "staging", staging_of(rows, np.array([4, -1], np.int64))))
    for row_bytes in (WIDTH * 4 + 1, 2**58, 2**62):  # 64 times either is none, or below it
        with pytest.raises(ValueError, match="packs carry more than all their buffers hold"):
            program.run_body(**with_(arguments, "staging", staging_of(rows, row_bytes=row_bytes)))


def test_what_all_threads_run_is_not_watched_in_place() -> None:
    case = Case()
    x, out = tokens_buffer("x", WIDTH), Buffer("out", Rows.PARTIALS, WIDTH)
    embed = Embed(stage=0, out=x, tokens=case.weight("tokens", ROWS, WIDTH))
    body = Program("test", (embed, Pool(stage=1, x=x, out=out, kind="sum", index=0)), (out,))
    executor: Any = cpu_executor(body, case.tensors, threads=2, isa="generic")
    executor._program.watch()
    with pytest.raises(ValueError, match="what all threads share is not watched"):
        executor._runner.run_stage(
            executor._program, batch_of([3]), Way(schedule="shared"), 2, aligned(np.zeros(64 * WIDTH * 4, np.uint8))
        )


def test_programs_that_cannot_be_taken() -> None:
    rows = [("T", WIDTH, "float32"), ("N", WIDTH, "float32")]
    program = _csrc.Program(rows, -1, "generic")
    others = [
        _csrc.Program([("T", WIDTH, "bfloat16"), rows[1]], -1, "generic"),
        _csrc.Program([*rows, rows[0]], -1, "generic"),
        _csrc.Program(rows, 1, "generic"),
        *(_csrc.Program(rows, -1, isa) for isa in _csrc.tiers()[1:]),
        program,
    ]
    for other in others:
        with pytest.raises(ValueError, match="the other program is not of this one's kind"):
            program.take(other)
    fields = {"scale": 1.0, "position_offset": 0, "tokens": floats(ROWS, WIDTH), "out": 0}
    first, second = (_csrc.Program(rows, -1, "generic") for _ in range(2))
    first.add("embed", {**fields, "stage": 0})
    second.add("embed", {**fields, "stage": 1})
    program.take(second)
    with pytest.raises(ValueError, match="stages run backwards"):
        program.take(first)
    program.take(second)  # nothing is left in it
    assert len(program.watched()) == 1
    assert len(first.watched()) == 1


@pytest.mark.parametrize("shape", [(70,), (2, 70), (1, 69), (1, 1, 70)])
def test_inputs_of_another_shape(shape: tuple[int, ...]) -> None:
    program = _csrc.Program([("T", 70, "float32"), ("T", 20, "float32")], -1, "generic")
    fields = {
        "stage": 0,
        "x": 0,
        "out": 1,
        "weight": floats(20, 70),
        "format": "int8",
        "activation": "identity",
        **dict.fromkeys(("factor", "residual", "ranks", "bias", "low_rank")),
    }
    with pytest.raises(ValueError, match="weight: inputs are not as many as its columns"):
        program.add("linear", {**fields, "inputs": {"weight": np.ones(shape, np.float32)}})


@pytest.mark.parametrize("change", BREAKS)
def test_weights_that_cannot_be_read(change: Callable[[Any], Any]) -> None:
    program = _csrc.Program([("T", WIDTH, "float32")], -1, "generic")
    good = np.ones((ROWS, WIDTH), np.float32)
    fields = {"stage": 0, "out": 0, "scale": 1.0, "position_offset": 0}
    with pytest.raises((ValueError, TypeError, RuntimeError)):
        program.add("embed", {**fields, "tokens": [(change(good), "F32")]})
    for dtype, values in (("F32", good.view(np.int32)), ("BF16", good.astype(np.float16)), ("F16", good)):
        with pytest.raises(ValueError, match="tokens is not"):
            program.add("embed", {**fields, "tokens": [(values, dtype)]})


COLUMNS, TERMS = 20, 70
PANELS: Mapping[str, Any] = {
    "panels": np.ones((2, 32, 16, 4), np.int8),
    "scales": np.ones(32, np.float32),
    "totals": np.full(32, 70, np.float32),
    "smooth": np.ones(80, np.float32),
}


def aligned(array: Any) -> Any:
    """The same numbers where a line may begin."""
    memory = np.zeros(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def add_panels(**changed: Any) -> Any:
    """A program that multiplies with panels as a file would hold them, but for what is changed or None."""
    program = _csrc.Program([("T", TERMS, "float32"), ("T", COLUMNS, "float32")], -1, "generic")
    arrays = {name: aligned(array) for name, array in PANELS.items()} | changed
    record = {name: array for name, array in arrays.items() if array is not None}
    weight = {"name": "up", "format": "int8", **record}
    none = dict.fromkeys(("factor", "residual", "ranks", "bias", "low_rank"))
    program.add(
        "linear", {"stage": 0, "x": 0, "out": 1, "weight": weight, "format": "int8", "activation": "identity", **none}
    )
    return program


def test_panels_are_read_in_place() -> None:
    arrays = {name: aligned(array) for name, array in PANELS.items()}
    program = add_panels(**arrays)
    (found,) = program.panels_of(0)["weight"]
    for name, mine in zip(PANELS, found, strict=True):
        assert mine.ctypes.data == arrays[name].ctypes.data
        assert not mine.flags.writeable
        np.testing.assert_array_equal(mine, PANELS[name])
    (found,) = add_panels(smooth=None).panels_of(0)["weight"]
    assert found[3] is None
    with pytest.raises(ValueError, match="there is no instruction 1"):
        program.panels_of(1)


@pytest.mark.parametrize("name", PANELS)
def test_panels_that_cannot_be_read(name: str) -> None:
    good = PANELS[name]
    other = good.view(np.uint8) if name == "panels" else good.astype(np.float64)
    broken = [misaligned(good), strided(good), aligned(other), aligned(good[:-1]), aligned(good[..., None])]
    for array in [*broken, aligned(good)[..., :0], listed(good), *([] if name == "smooth" else [None])]:
        with pytest.raises(ValueError, match=rf"linear: (there is no )?up\.{name}"):
            add_panels(**{name: array})


@pytest.mark.parametrize("form", ["bfloat16", "float32"])
def test_panels_of_another_format(form: str) -> None:
    with pytest.raises(ValueError, match="up is stored in panels of another format"):
        add_panels(format=form)


@pytest.mark.parametrize("change", [misaligned, strided, other_order])
def test_scores_of_arrays_of_any_form(change: Callable[[Any], Any]) -> None:
    """These come from callers as they are, and are copied where they have to be."""
    vectors = np.random.default_rng(0).standard_normal((5, 40), dtype=np.float32)
    expected = _csrc.scores(vectors, vectors, "dot", 1, "")
    np.testing.assert_array_equal(_csrc.scores(change(vectors), change(vectors), "dot", 1, ""), expected)


def test_a_program_without_instructions_is_not_run(run: tuple[Any, Arguments]) -> None:
    _, arguments = run
    empty = _csrc.Program([("T", WIDTH, "float32"), ("P", WIDTH, "float32")], -1, "generic")
    with pytest.raises(ValueError, match="there is nothing to run"):
        empty.run_body(**{**arguments, "partials": []})


def test_a_tail_is_not_run_as_a_body(run: tuple[Any, Arguments]) -> None:
    program, arguments = run
    with pytest.raises(ValueError, match="this program is a tail"):
        _csrc.Program([("N", WIDTH, "float32")], 0, "generic").run_body(**arguments)
    with pytest.raises(ValueError, match="this program is not a tail"):
        program.run_tail([], [], [], arguments["tile"], 1)
