"""What `_csrc` refuses of a program: instructions whose buffers, weights or fields do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from longspan import _csrc

from ..ops.harness import floats

WIDTH, ROWS = 8, 10
Arguments = dict[str, Any]

KINDS = ("T", "tile", "P", "N")
BUFFERS = [(rows, WIDTH, "float32") for rows in KINDS] + [(rows, 2 * WIDTH, "float32") for rows in KINDS]
T, TILE, P, N = range(4)
"""The first buffers of each kind; those that are twice as wide come four later."""


def instructions(tail: bool) -> Mapping[str, Arguments]:
    """Good fields of each instruction, of a body's or a tail's."""
    rows = N if tail else T
    product: Arguments = {"format": "float32", "activation": "gelu", "ranks": None, "residual": None}
    both: dict[str, Arguments] = {
        "norm": {"x": rows, "out": rows, "kind": "rms", "eps": 1e-5, "weight_offset": 0.0, "residual": rows},
        "linear": {**product, "x": rows, "out": rows, "weight": floats(WIDTH, WIDTH), "factor": rows, "residual": rows},
    }
    if tail:
        return both | {
            "combine": {"partials": P, "out": N, "kind": "mean", "index": 0, "column": 0},
            "normalize": {"x": N, "out": N, "unit": True},
            "tanhquantize": {"x": N, "out": N},
        }
    heads = {"heads": 1, "kv_heads": 1, "head_size": WIDTH}
    experts = {"routing": {"experts": WIDTH, "chosen": 1, "normalised": True}, "router": floats(WIDTH, WIDTH)}
    latents = {name: floats(WIDTH, WIDTH) for name in ("query", "keys", "values", "output")} | {"latents": floats(8, 4)}
    latents |= {name: floats(WIDTH, 4) for name in ("keys", "values")}
    return both | {
        "embed": {
            "out": T,
            "tokens": floats(ROWS, WIDTH),
            "types": floats(1, WIDTH),
            "scale": 1.0,
            "position_offset": 0,
        },
        "qkv": {**product, **heads, "x": T, "q": T, "k": T, "v": T, "weight": floats(3 * WIDTH, WIDTH)},
        "attention": {**heads, "q": T, "k": T, "v": T, "out": T, "scale": 1.0, "int8": False, "slopes": ()},
        "mlp": {
            **product,
            "x": T,
            "out": T,
            "hidden": TILE,
            "residual": T,
            "up": floats(WIDTH, WIDTH),
            "down": floats(WIDTH, WIDTH),
        },
        "moe": {
            **product,
            **experts,
            "x": T,
            "out": T,
            "logits": TILE,
            "gathered": TILE,
            "hidden": TILE,
            "sums": TILE,
            "residual": T,
            "up": floats(WIDTH**2, WIDTH),
            "down": floats(WIDTH**2, WIDTH),
        },
        "latentattention": {
            "x": T,
            "out": T,
            "scores": TILE,
            "residual": T,
            "eps": 1e-5,
            "heads": 1,
            "scale": 1.0,
            **latents,
        },
        "tap": {"x": T, "out": T, "weight": floats(2), "layers": 2, "index": 0},
        "pool": {"x": T, "out": P, "kind": "sum", "index": 0},
    }


def add_instruction(op: str, fields: Arguments, tail: bool) -> None:
    program = _csrc.Program(BUFFERS, N if tail else -1, "generic")
    program.add(op, {"stage": 0, **fields})


EACH = [(op, tail) for tail in (False, True) for op in instructions(tail)]
NAMES = ("x", "out", "q", "k", "v", "hidden", "logits", "gathered", "sums", "scores", "factor", "residual", "partials")
"""Fields that are buffers."""

each_instruction = pytest.mark.parametrize(("op", "tail"), EACH)


@each_instruction
def test_good_fields_are_good(op: str, tail: bool) -> None:
    add_instruction(op, instructions(tail)[op], tail)


@each_instruction
def test_buffers_of_another_kind(op: str, tail: bool) -> None:
    """Of rows that the instruction's are not: their places are another arena's, or none."""
    good = instructions(tail)[op]
    for name in (name for name in NAMES if good.get(name) is not None):
        for other in {T, TILE, P, N} - {good[name]}:
            with pytest.raises(ValueError, match=rf"{op}: {name} has rows for [a-z ]+, expected them for [a-z]+"):
                add_instruction(op, {**good, name: other}, tail)
        with pytest.raises(ValueError, match="no such buffer"):
            add_instruction(op, {**good, name: len(BUFFERS)}, tail)


@each_instruction
def test_weights_that_are_missing_or_of_another_shape(op: str, tail: bool) -> None:
    good = instructions(tail)[op]
    for name in (name for name, value in good.items() if isinstance(value, list)):
        if op != "embed":
            with pytest.raises(ValueError, match=rf"{op}: there is no {name}"):
                add_instruction(op, {**good, name: None}, tail)
        array = good[name][0][0]
        for other in (array[:0], array[..., None], array[None]):
            with pytest.raises(ValueError, match=rf"{op}: "):
                add_instruction(op, {**good, name: [(other, "F32")]}, tail)


@each_instruction
def test_instructions_of_the_other_program(op: str, tail: bool) -> None:
    if (op, not tail) not in EACH:
        with pytest.raises(ValueError, match=rf"{op}: there is no such instruction in a {'body' if tail else 'tail'}"):
            add_instruction(op, instructions(tail)[op], not tail)


@pytest.mark.parametrize(
    ("op", "tail", "changed", "message"),
    [
        ("linear", True, {"format": "int8"}, "a tail multiplies in float32"),
        ("linear", True, {"format": "bfloat16"}, "a tail multiplies in float32"),
        ("linear", True, {"low_rank": {"tasks": 1, "rank": 1, "scale": 1.0}}, "a tail multiplies in float32"),
        ("mlp", False, {"hidden": TILE + 4}, "up has 8 rows, expected 16"),
        ("moe", False, {"logits": TILE + 4}, "logits has 16 columns, expected 8"),
        ("qkv", False, {"q_scale": -5}, "no such factors"),
        ("attention", False, {"relative_bias": floats(1, 1), "reach": -16}, "reach is negative"),
        ("pool", False, {"out": P + 4}, "out has 16 columns, expected 8"),
    ],
)
def test_fields_that_do_not_fit(op: str, tail: bool, changed: Arguments, message: str) -> None:
    with pytest.raises(ValueError, match=f"{op}: {message}"):
        add_instruction(op, {**instructions(tail)[op], **changed}, tail)


@pytest.mark.parametrize(
    ("buffers", "output"),
    [
        ([("P", 8, "bfloat16")], -1),
        ([("N", 8, "bfloat16")], 0),
        ([("T", 8, "float32")], 0),
        ([("N", 8, "float32")], 1),
        ([("N", 8, "float32")], -2),
        ([("T", 0, "float32")], -1),
        ([("T", 2**62, "float32")], -1),
    ],
)
def test_programs_that_cannot_be(buffers: list[tuple[str, int, str]], output: int) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        _csrc.Program(buffers, output, "generic")
