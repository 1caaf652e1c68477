"""Placement: what is live at the same time never shares bytes, and the size is known and small."""

from __future__ import annotations

import dataclasses
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.program.arena import Arena, Extents, live_bytes, live_ranges, place
from longspan.program.instructions import Attention, Embed, Instruction, Linear, Mlp, Norm, Normalize, Pool, Qkv
from longspan.program.operands import Buffer, Rows, Weight
from longspan.program.program import Program

ONE = Weight(("one",), (1,))

extents_of_any_size = st.builds(Extents, st.integers(0, 300), st.integers(0, 96), st.integers(0, 9))


def copy(x: Buffer, out: Buffer, residual: Buffer | None = None) -> Linear:
    return Linear(stage=0, x=x, out=out, weight=ONE, residual=residual)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Random programs over a handful of buffers: chains with re-use, in-place steps, dead and untouched buffers."""
    buffers = [
        Buffer(f"b{i}", draw(st.sampled_from(list(Rows))), draw(st.sampled_from([1, 3, 8, 40, 300])))
        for i in range(draw(st.integers(1, 8)))
    ]
    inputs = draw(st.lists(st.sampled_from(buffers), max_size=2, unique=True))
    written = list(inputs)
    instructions: list[Instruction] = []
    for _ in range(draw(st.integers(0, 14))):
        out = draw(st.sampled_from(buffers))
        if draw(st.booleans()) and written:
            x, residual = draw(st.sampled_from(written)), draw(st.sampled_from([None, *written]))
            instructions.append(copy(x, out, residual))
        else:
            instructions.append(Embed(stage=0, out=out, tokens=ONE))
        written.append(out)
    outputs = draw(st.lists(st.sampled_from(written), max_size=2, unique=True)) if written else []
    return Program("random", tuple(instructions), outputs=tuple(outputs), inputs=tuple(inputs))


def bert(layers: int, width: int, inner: int) -> Program:
    """A body of the shape that BERT's family file writes."""
    x, q, k, v, context = (Buffer(name, Rows.TOKENS, width) for name in ("x", "q", "k", "v", "context"))
    hidden, pooled = Buffer("hidden", Rows.TILE, inner), Buffer("pooled", Rows.PARTIALS, width)
    norm = Norm(stage=0, x=x, out=x, eps=1e-12)
    body: list[Instruction] = [Embed(stage=0, out=x, tokens=ONE), norm]
    for stage in range(1, layers + 1):
        body += [
            Qkv(stage=stage, x=x, q=q, k=k, v=v, weight=ONE, heads=1, kv_heads=1, head_size=width),
            Attention(stage=stage, q=q, k=k, v=v, out=context, heads=1, kv_heads=1, head_size=width, scale=1.0),
            Linear(stage=stage, x=context, out=x, weight=ONE, residual=x),
            dataclasses.replace(norm, stage=stage),
            Mlp(stage=stage, x=x, out=x, hidden=hidden, up=ONE, down=ONE, activation="gelu", residual=x),
            dataclasses.replace(norm, stage=stage),
        ]
    body.append(Pool(stage=layers + 1, x=x, out=pooled, kind="sum", index=0))
    return Program("bert", tuple(body), outputs=(pooled,))


def assert_disjoint(program: Program, extents: Extents, arena: Arena) -> None:
    """No two buffers that are live at one instruction share a byte, and all lie inside the arena."""
    sizes = {b.name: extents.rows(b) * b.width * 4 for b in program.buffers if b.rows is not Rows.PARTIALS}
    assert arena.offsets.keys() == sizes.keys()
    for name, size in sizes.items():
        assert 0 <= arena.offsets[name] <= arena.offsets[name] + size <= arena.size
    ranges = live_ranges(program)
    for a, b in combinations(filter(sizes.__getitem__, sizes), 2):
        in_time = ranges[a][0] <= ranges[b][1] and ranges[b][0] <= ranges[a][1]
        in_space = arena.offsets[a] < arena.offsets[b] + sizes[b] and arena.offsets[b] < arena.offsets[a] + sizes[a]
        assert not (in_time and in_space), f"{a} and {b} overlap"


@given(programs(), extents_of_any_size, st.sampled_from([1, 4, 64, 4096]))
def test_placement(program: Program, extents: Extents, alignment: int) -> None:
    arena = place(program, extents, alignment=alignment)
    assert_disjoint(program, extents, arena)
    assert all(offset % alignment == 0 for offset in arena.offsets.values())
    assert arena.size % alignment == 0
    assert arena.size >= live_bytes(program, extents, alignment=alignment)


@given(programs())
def test_everything_an_instruction_touches_is_live_at_it(program: Program) -> None:
    ranges = live_ranges(program)
    for index, instruction in enumerate(program.instructions):
        for buffer in (*instruction.reads, *instruction.writes):
            first, last = ranges[buffer.name]
            assert first <= index <= last
    assert all(ranges[buffer.name][0] == -1 for buffer in program.inputs)
    assert all(ranges[buffer.name][1] == len(program.instructions) for buffer in program.outputs)


@given(programs(), extents_of_any_size)
def test_live_bytes_is_the_fullest_instruction(program: Program, extents: Extents) -> None:
    ranges = live_ranges(program)
    sizes = {b.name: extents.rows(b) * b.width * 4 for b in program.buffers if b.rows is not Rows.PARTIALS}
    fullest = max(
        sum(size for name, size in sizes.items() if ranges[name][0] <= time <= ranges[name][1])
        for time in range(-1, len(program.instructions) + 1)
    )
    assert live_bytes(program, extents, alignment=1) == fullest


@given(programs(), st.integers(1, 50), st.integers(1, 50))
def test_size_grows_no_faster_than_linearly(program: Program, tokens: int, factor: int) -> None:
    small, large = (place(program, Extents(n, 16, 4)).size for n in (tokens, tokens * factor))
    widths = sum(b.width for b in program.buffers if b.rows is not Rows.PARTIALS)
    assert large <= 4 * widths * max(tokens * factor, 16) + 64 * len(program.buffers)
    assert small <= 4 * widths * max(tokens, 16) + 64 * len(program.buffers)


@pytest.mark.parametrize("layers", [1, 2, 12])
@pytest.mark.parametrize(("width", "inner"), [(384, 1536), (768, 3072), (40, 8), (24, 8192)])
@pytest.mark.parametrize("tokens", [0, 1, 63, 512, 32768])
def test_bert_takes_no_more_than_what_is_live(layers: int, width: int, inner: int, tokens: int) -> None:
    program, extents = bert(layers, width, inner), Extents(tokens, 96, 0)
    arena = place(program, extents)
    assert_disjoint(program, extents, arena)
    assert arena.size == live_bytes(program, extents)


def test_bert_is_affine_in_tokens() -> None:
    sizes = [place(bert(2, 384, 1536), Extents(tokens, 96, 0)).size for tokens in range(1024, 8192, 1024)]
    steps = {b - a for a, b in pairwise(sizes)}
    assert steps == {1024 * 5 * 384 * 4}


def test_buffers_of_disjoint_lives_share_bytes() -> None:
    a, b, c = (Buffer(name, Rows.TOKENS, 16) for name in "abc")
    program = Program("chain", (Embed(stage=0, out=a, tokens=ONE), copy(a, b), copy(b, c)), outputs=(c,))
    arena = place(program, Extents(4, 0, 0))
    assert arena.size == 2 * 256
    assert arena.offsets["a"] == arena.offsets["c"] != arena.offsets["b"]


def test_an_instruction_may_work_in_place() -> None:
    a = Buffer("a", Rows.VECTORS, 16)
    program = Program("in place", (Normalize(stage=0, x=a, out=a, unit=True),), outputs=(a,), inputs=(a,))
    assert place(program, Extents(0, 0, 3)) == Arena({"a": 0}, 192)


def test_partials_are_not_in_the_arena() -> None:
    program = bert(1, 8, 8)
    assert "pooled" not in place(program, Extents(5, 5, 5)).offsets
    with pytest.raises(ValueError, match="does not live in the arena"):
        Extents(1, 1, 1).rows(program.outputs[0])


def test_nothing_to_place() -> None:
    program = Program("nothing", (), outputs=())
    assert place(program, Extents(5, 5, 5)) == Arena({}, 0)
    assert live_bytes(program, Extents(5, 5, 5)) == 0
