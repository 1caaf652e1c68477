"""`longspan info`."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from longspan import Encoder, _csrc
from longspan.checkpoint.panels import panel_file
from longspan.checkpoint.tensors import Tensors
from longspan.cli.info import RUNS, _instructions, _runs
from longspan.program import instructions
from longspan.program.formats import in_format
from longspan.program.instructions import Attention, Instruction, Linear, Moe, Norm, Qkv, Routing, Tap
from longspan.program.operands import Buffer, Rows, Weight
from longspan.program.positions import SelfExtend
from longspan.program.program import Program
from longspan.program.rope import Frequencies, Rope

Run = Callable[..., Any]

KINDS = {
    kind.__name__: kind
    for kind in vars(instructions).values()
    if isinstance(kind, type) and issubclass(kind, Instruction) and kind is not Instruction
}
ROWS = Buffer("x", Rows.TOKENS, 8)
ROPE = Rope(4, Frequencies((1.0, 0.5)))
VALUES: dict[Any, Any] = {
    Buffer: ROWS,
    Weight: Weight(("w",), (8, 8)),
    Routing: Routing(experts=4, chosen=2, normalised=True),
    int: 1,
    float: 0.5,
    bool: True,
}


def made(kind: type[Instruction], /, **given: Any) -> Instruction:
    """An instruction with some value for every field that needs one."""
    hints = get_type_hints(kind)
    for spec in dataclasses.fields(kind):
        if spec.name not in given and spec.default is dataclasses.MISSING:
            hint = hints[spec.name]
            given[spec.name] = get_args(hint)[0] if get_origin(hint) is Literal else VALUES[hint]
    return kind(**given)


def lines_of(*steps: Instruction) -> list[tuple[str, int, str]]:
    """What the table says of a body: (op, count, what it runs)."""
    body, tail = Program("body", steps, (), (ROWS,)), Program("tail", (), ())
    machine = {"device": "cpu", "tier": "generic"}
    return [
        (entry["op"], entry["count"], entry["runs"]) for entry in _instructions([body, tail], "float32", machine, None)
    ]


def test_json(longspan: Run, minilm: Path) -> None:
    report = json.loads(longspan("info", minilm, "--json", "--threads", 1).out)
    encoder = Encoder(minilm)
    model = report["model"]
    assert (model["type"], model["layers"], model["width"], model["parameters"]) == ("bert", 6, 384, 22_565_376)
    assert model["dimension"] == encoder.get_embedding_dimension()
    assert model["max_seq_length"] == encoder.max_seq_length
    assert (model["pooling"], model["tail"], model["similarity"]) == (["mean"], ["Normalize"], "cosine")
    assert report["machine"]["tiers"] == _csrc.tiers()
    assert report["machine"]["threads"] == 1
    assert report["machine"]["schedule"] == "packs of up to 384 tokens, one after another"
    counts = {(entry["program"], entry["op"]): entry["count"] for entry in report["instructions"]}
    assert counts["body", "attention"] == 6
    assert counts["tail", "normalize"] == 1
    assert "programs" not in report


def test_extension(longspan: Run, tiny: Path) -> None:
    model = json.loads(longspan("info", tiny, "--json", "--extend", "grouped", "--max-seq-length", 100).out)["model"]
    assert model["extension"] == "grouped from 64 to 100 positions"
    assert (model["max_seq_length"], model["positions"]) == (100, 100)
    assert json.loads(longspan("info", tiny, "--json").out)["model"]["extension"] is None
    assert "position_map=recurrent/64" in longspan("info", tiny, "--program", "--extend", "recurrent").out
    assert longspan("info", tiny, "--extend", "ntk").error.startswith("extend='ntk' does not fit the positions of bert")
    assert longspan("info", tiny, "--max-seq-length", 32).error.startswith("--max-seq-length says what --extend")


def test_a_tier_that_is_not_there(longspan: Run, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGSPAN_ISA", "mmx")
    assert longspan("info", tiny).error.startswith("LONGSPAN_ISA is 'mmx', expected one of generic")
    monkeypatch.setenv("LONGSPAN_ISA", "generic")
    assert json.loads(longspan("info", tiny, "--json").out)["machine"]["tier"] == "generic"


def test_the_tier_is_the_one_that_runs(minilm: Path) -> None:
    """A system refuses tiles to a process with a signal stack that is too small for them."""
    script = """
import ctypes, sys
class Stack(ctypes.Structure):
    _fields_ = [("memory", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]
memory = ctypes.create_string_buffer(4096)
stack = Stack(ctypes.addressof(memory), 0, 4096)
getattr(ctypes.CDLL(None), "sigaltstack", lambda *_: None)(ctypes.byref(stack), None)
from longspan import Encoder
from longspan.cli.identity import instruction_tier
print(instruction_tier(), Encoder(sys.argv[1], device="cpu")._pipeline.executor.isa)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment.pop("LONGSPAN_ISA", None)
    said, used = subprocess.check_output([sys.executable, "-c", script, minilm], env=environment, text=True).split()
    assert said == used


def test_schedule(longspan: Run, tiny: Path) -> None:
    machine = json.loads(longspan("info", tiny, "--json", "--threads", 2).out)["machine"]
    assert "a thread each; all threads together where texts have 1024 tokens" in machine["schedule"]
    assert machine["schedule"] in longspan("info", tiny, "--threads", 2).out


@pytest.mark.parametrize("name", KINDS)
def test_every_instruction_is_described(name: str) -> None:
    step = made(KINDS[name])
    head, _, text = _runs(step, "float32", "generic", None).partition(": ")
    assert head == "C++ float32"
    assert text
    assert text != step.op


def test_nothing_else_is_described() -> None:
    assert set(RUNS) == {name.lower() for name in KINDS}


def test_forms_of_one_kind_have_lines_of_their_own() -> None:
    window: dict[str, Any] = {"left": 64, "right": 64}
    turned: dict[str, Any] = {"rope": ROPE, "self_extend": SelfExtend(256, 4, 64)}
    attention = [made(Attention, stage=stage, **given) for stage, given in enumerate([{}, window, window, {}, turned])]
    lines = lines_of(made(Tap, stage=0), *attention, made(Tap, stage=5), made(Norm, stage=5, kind="rms"))
    assert [(op, count) for op, count, _ in lines] == [
        ("tap", 2),
        ("attention", 2),
        ("attention", 2),
        ("attention", 1),
        ("norm", 1),
    ]
    _, full, local, grouped, norm = (runs for _, _, runs in lines)
    assert "all keys," in full
    assert "64 keys before and 64 keys after," in local
    assert "in groups of 4 beyond 64/256" in grouped
    assert "rms" in norm


@pytest.mark.parametrize(
    ("kind", "given", "text"),
    [
        (Attention, {"right": 0}, "causal"),
        (Attention, {"left": 9, "right": 0}, "9 keys before and 0 keys after"),
        (Attention, {"right": 3}, "all keys before and 3 keys after"),
        (Attention, {"slopes": (0.5,), "soft_cap": 50.0}, "ALiBi, soft cap"),
        (Qkv, {"rope": ROPE}, "then heads turned"),
        (Linear, {"activation": "tanh"}, "tanh"),
        (Moe, {"gate": VALUES[Weight], "activation": "silu"}, "2 of 4, silu gate"),
    ],
)
def test_what_steps_differ_in(kind: type[Instruction], given: dict[str, Any], text: str) -> None:
    assert f", {text}, " in lines_of(made(kind, **given))[0][2]
    assert text not in lines_of(made(kind))[0][2]


def test_formats_have_lines_of_their_own() -> None:
    narrow = in_format(Program("narrow", (made(Linear),), (), (ROWS,)), "bfloat16").instructions
    (_, _, exact), (_, _, rounded) = lines_of(made(Linear), *narrow)
    assert exact.startswith("C++ float32: ")
    assert rounded.startswith("C++ bfloat16: ")


def test_lines(longspan: Run, tiny: Path) -> None:
    ran = longspan("info", tiny)
    assert (ran.code, ran.err) == (0, "")
    lines = [line.split() for line in ran.out.splitlines()]
    assert ["layers", "1"] in lines
    assert ["positions", "64"] in lines
    assert ["tail", "none"] in lines
    assert "qkv  " in ran.out
    assert "← inputs" not in ran.out
    listing = longspan("info", tiny, "--program").out
    assert listing.startswith(ran.out)
    assert "bert: 9 instructions" in listing
    assert "tail: 2 instructions" in listing


@pytest.mark.parametrize("tier", _csrc.tiers())
def test_narrow_weights(longspan: Run, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tier: str) -> None:
    monkeypatch.setenv("LONGSPAN_ISA", tier)
    encoder = Encoder(tiny, weights="int8")
    encoder.save(tmp_path / "saved")

    def runs(folder: Path) -> dict[str, str]:
        report = json.loads(longspan("info", folder, "--weights", "int8", "--json").out)
        assert report["model"]["weights"] == "int8"
        return {entry["op"]: entry["runs"].partition(":")[0] for entry in report["instructions"]}

    assert (runs(tiny)["mlp"], runs(tiny)["norm"]) == ("C++ int8", "C++ float32")
    faster = _csrc.int8_attention_is_faster(tier)
    before = "C++ int8 if the sample texts bear it, else bfloat16" if faster else "C++ bfloat16"
    assert runs(tiny)["attention"] == before
    held = panel_file(Tensors.open(tmp_path / "saved").values())
    assert held is not None
    assert runs(tmp_path / "saved")["attention"] == ("C++ int8" if faster and held.int8_attention else "C++ bfloat16")
    assert json.loads(longspan("info", tiny, "--json").out)["model"]["weights"] == "float32"
