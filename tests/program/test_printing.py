"""The listing of a program, as a terminal shows it."""

from __future__ import annotations

import re

from longspan.program.instructions import (
    Attention,
    Combine,
    Embed,
    Instruction,
    Linear,
    Mlp,
    Norm,
    Normalize,
    Pool,
    Qkv,
)
from longspan.program.operands import Buffer, LowRank, Rows, Weight
from longspan.program.printing import format_program
from longspan.program.program import Program


def weight(*shape: int) -> Weight:
    return Weight(("w",), shape)


def small_bert(width: int, vocabulary: int) -> Program:
    x, q, k, v, context = (Buffer(name, Rows.TOKENS, width) for name in ("x", "q", "k", "v", "context"))
    hidden, pooled = Buffer("hidden", Rows.TILE, 4 * width), Buffer("partials0", Rows.PARTIALS, width)
    heads = width // 8
    square, inner = weight(width, width), weight(4 * width)
    body: tuple[Instruction, ...] = (
        Embed(
            stage=0,
            out=x,
            tokens=weight(vocabulary, width),
            positions=weight(8194, width),
            position_offset=2,
            types=weight(2, width),
        ),
        Norm(stage=0, x=x, out=x, weight=weight(width), bias=weight(width), eps=1e-12),
        Qkv(stage=1, x=x, q=q, k=k, v=v, weight=weight(3 * width, width), heads=heads, kv_heads=heads, head_size=8),
        Attention(stage=1, q=q, k=k, v=v, out=context, heads=heads, kv_heads=heads, head_size=8, scale=8**-0.5),
        Linear(stage=1, x=context, out=x, weight=square, bias=weight(width), residual=x),
        Mlp(
            stage=1,
            x=x,
            out=x,
            hidden=hidden,
            up=weight(4 * width, width),
            up_bias=inner,
            down=weight(width, 4 * width),
            activation="gelu_tanh",
            residual=x,
        ),
        Pool(stage=2, x=x, out=pooled, kind="sum", index=0),
    )
    return Program("bert body", body, outputs=(pooled,))


BODY = """\
bert body: 7 instructions, 7 buffers, 91,072 weight elements

#  stage  op         outputs    ← inputs      weights, attributes
0      0  embed      x                        tokens[100,8] positions[8194,8] types[2,8]  position_offset=2
1      0  norm       x          ← x           [8]+bias  eps=1e-12
2      1  qkv        q, k, v    ← x           [24,8]  heads=1 kv_heads=1 head_size=8
3      1  attention  context    ← q, k, v     heads=1 kv_heads=1 head_size=8 scale=0.353553
4      1  linear     x          ← context, x  [8,8]+bias  residual=x
5      1  mlp        x, hidden  ← x           up[32,8]+bias down[8,32]  gelu_tanh residual=x
6      2  pool       partials0  ← x           sum index=0

buffer     rows  width
x          T         8  carried
q          T         8
k          T         8
v          T         8
context    T         8
hidden     tile     32
partials0  P         8  output"""


def test_body() -> None:
    text = format_program(small_bert(8, 100))
    elements = re.compile(r"[\d,]+ weight elements")
    assert elements.sub("", text) == elements.sub("", BODY)


def test_weight_elements_are_counted_once() -> None:
    x = Buffer("x", Rows.TOKENS, 8)
    norm = Norm(stage=0, x=x, out=x, weight=weight(8), eps=1e-5)
    program = Program("twice", (Embed(stage=0, out=x, tokens=weight(1000, 8)), norm, norm), outputs=(x,))
    assert format_program(program).startswith("twice: 3 instructions, 1 buffer, 8,008 weight elements\n")


def test_the_widest_models_fit_a_terminal() -> None:
    lines = format_program(small_bert(4096, 250_002)).splitlines()
    assert max(map(len, lines)) <= 120
    assert not any(line.endswith(" ") for line in lines)


def test_low_rank_pairs() -> None:
    x, hidden = Buffer("x", Rows.TOKENS, 8), Buffer("hidden", Rows.TILE, 32)
    ranks, tile_ranks = Buffer("ranks", Rows.TOKENS, 4), Buffer("tile_ranks", Rows.TILE, 4)

    def pair(outer: int, inner: int) -> LowRank:
        return LowRank(left=weight(5 * outer, 4), right=Weight(("r",), (20, inner)), tasks=5, scale=0.25)

    up, down = weight(32, 8), weight(8, 32)
    program = Program(
        "adapted",
        (
            Embed(stage=0, out=x, tokens=weight(100, 8), tokens_low_rank=pair(100, 8)),
            Linear(stage=1, x=x, out=x, ranks=ranks, weight=weight(8, 8), bias=weight(8), low_rank=pair(8, 8)),
            Mlp(
                stage=1,
                x=x,
                out=x,
                hidden=hidden,
                ranks=tile_ranks,
                up=up,
                up_low_rank=pair(32, 8),
                up_bias=weight(32),
                down=down,
                activation="gelu",
            ),
        ),
        outputs=(x,),
    )
    assert format_program(program).splitlines()[3:6] == [
        "0      0  embed   x                                tokens[100,8]+rank4x5",
        "1      1  linear  x, ranks               ← x       [8,8]+bias+rank4x5",
        "2      1  mlp     x, hidden, tile_ranks  ← x       up[32,8]+bias+rank4x5 down[8,32]  gelu",
    ]


def test_tail() -> None:
    given = Buffer("partials0", Rows.PARTIALS, 8)
    x, y, out = (Buffer(name, Rows.VECTORS, width) for name, width in (("x", 16), ("y", 8), ("out", 4)))
    program = Program(
        "tail",
        (
            Combine(stage=0, partials=given, out=x, kind="mean", index=0, column=8),
            Linear(stage=0, x=x, out=y, weight=weight(8, 16), activation="tanh"),
            Normalize(stage=0, x=y, out=y, unit=True),
            Normalize(stage=0, x=y, out=out, unit=False),
        ),
        outputs=(out,),
        inputs=(given,),
    )
    lines = format_program(program).splitlines()
    assert lines[3:7] == [
        "0      0  combine    x        ← partials0  mean index=0 column=8",
        "1      0  linear     y        ← x          [8,16]  tanh",
        "2      0  normalize  y        ← y          unit",
        "3      0  normalize  out      ← y          not unit",
    ]
    assert lines[-4:] == [
        "partials0  P         8  input",
        "x          N        16",
        "y          N         8",
        "out        N         4  output",
    ]


def test_an_empty_program() -> None:
    assert format_program(Program("nothing", (), outputs=())).startswith("nothing: 0 instructions, 0 buffers, 0 weight")
