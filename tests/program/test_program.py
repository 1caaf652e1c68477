"""What a program checks when it is made, and what it knows about itself."""

from __future__ import annotations

import dataclasses

import pytest

from longspan.program.instructions import Attention, Embed, Linear, Mlp, Norm, Pool
from longspan.program.operands import Buffer, Rows, Weight
from longspan.program.program import Program

X = Buffer("x", Rows.TOKENS, 8)
Y = Buffer("y", Rows.TOKENS, 8)
HIDDEN = Buffer("hidden", Rows.TILE, 32)
POOLED = Buffer("pooled", Rows.PARTIALS, 8)
TABLE, SQUARE, VECTOR = Weight(("table",), (10, 8)), Weight(("square",), (8, 8)), Weight(("vector",), (8,))

EMBED = Embed(stage=0, out=X, tokens=TABLE)
NORM = Norm(stage=1, x=X, out=X, weight=VECTOR, bias=VECTOR, eps=1e-5)
LINEAR = Linear(stage=1, x=X, out=Y, weight=SQUARE, residual=X)
POOL = Pool(stage=2, x=Y, out=POOLED, kind="sum", index=0)


def test_a_program_lists_its_buffers_and_weights_once_in_order() -> None:
    program = Program("test", (EMBED, NORM, LINEAR, POOL), outputs=(POOLED,))
    assert program.buffers == (X, Y, POOLED)
    assert program.weights == (TABLE, VECTOR, SQUARE)


def test_inputs_are_written_before_the_start_and_come_first() -> None:
    program = Program("test", (dataclasses.replace(NORM, out=Y),), outputs=(Y,), inputs=(X,))
    assert program.buffers == (X, Y)


def test_an_output_may_be_an_input() -> None:
    assert Program("test", (), outputs=(X,), inputs=(X,)).buffers == (X,)


def test_reading_what_nothing_has_written() -> None:
    with pytest.raises(ValueError, match=r"test: norm reads x\[T,8\], which nothing has written"):
        Program("test", (NORM,), outputs=())


def test_reading_a_residual_that_nothing_has_written() -> None:
    with pytest.raises(ValueError, match=r"linear reads y\[T,8\]"):
        Program("test", (EMBED, dataclasses.replace(LINEAR, residual=Y)), outputs=())


@pytest.mark.parametrize("other", [Buffer("x", Rows.TOKENS, 16), Buffer("x", Rows.TILE, 8)])
def test_reading_under_another_shape(other: Buffer) -> None:
    with pytest.raises(ValueError, match="which nothing has written"):
        Program("test", (EMBED, dataclasses.replace(LINEAR, x=other)), outputs=())


def test_writing_under_another_shape() -> None:
    other = Buffer("x", Rows.TOKENS, 16)
    with pytest.raises(ValueError, match=r"x\[T,16\] and x\[T,8\] share a name"):
        Program("test", (EMBED, dataclasses.replace(LINEAR, out=other)), outputs=())


def test_stages_never_run_backwards() -> None:
    with pytest.raises(ValueError, match="norm of stage 0 follows stage 1"):
        Program("test", (EMBED, NORM, dataclasses.replace(NORM, stage=0)), outputs=())


def test_an_output_that_is_never_written() -> None:
    with pytest.raises(ValueError, match=r"output pooled\[P,8\] is never written"):
        Program("test", (EMBED,), outputs=(POOLED,))


def test_carried_buffers_are_those_read_in_a_later_stage_than_they_were_written() -> None:
    program = Program("test", (EMBED, NORM, LINEAR, POOL), outputs=(POOLED,))
    assert program.carried == {"x", "y"}


def test_a_buffer_that_every_stage_writes_anew_is_not_carried() -> None:
    instructions = [EMBED]
    layers = []
    for stage in (1, 2):
        layers += [dataclasses.replace(LINEAR, stage=stage), Norm(stage=stage, x=Y, out=X, eps=1e-5)]
    pool = Pool(stage=3, x=X, out=POOLED, kind="maximum", index=0)
    program = Program("test", (*instructions, *layers, pool), outputs=(POOLED,))
    assert program.carried == {"x"}


def test_a_tile_is_never_carried() -> None:
    mlp = Mlp(stage=1, x=X, out=Y, hidden=HIDDEN, up=SQUARE, down=SQUARE, activation="gelu", residual=X)
    program = Program("test", (EMBED, mlp, POOL), outputs=(POOLED,))
    assert "hidden" not in program.carried
    assert mlp.reads == (X, X)
    assert mlp.writes == (Y, HIDDEN)


def test_an_instruction_knows_what_it_reads_writes_and_weighs() -> None:
    attention = Attention(stage=1, q=X, k=Y, v=X, out=Y, heads=1, kv_heads=1, head_size=8, scale=1.0)
    assert (attention.op, attention.reads, attention.writes, attention.weights) == ("attention", (X, Y, X), (Y,), ())
    assert (EMBED.op, EMBED.reads, EMBED.writes, EMBED.weights) == ("embed", (), (X,), (TABLE,))
    assert LINEAR.reads == (X, X)
    assert dataclasses.replace(LINEAR, residual=None).reads == (X,)


def test_words() -> None:
    assert str(POOLED) == "pooled[P,8]"
    assert str(Weight(("q", "k"), (16, 8))) == "q+k[16, 8]"
    assert Weight(("q", "k"), (16, 8)).size == 128
