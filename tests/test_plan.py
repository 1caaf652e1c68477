"""Plans: what they are made of, and that a real run then takes so much."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from benchmarks.texts import paragraphs

from longspan import Encoder, InputError
from longspan.executors.footprint import Footprint, Table
from longspan.plan import Plan, Sizes, make_plan
from longspan.process_memory import ProcessMemory

from .processes import output_of

MIB = 1 << 20
FOOTPRINT = Footprint(
    tier="v3",
    threads=2,
    schedule="packs",
    pack_tokens=256,
    weights=40 * MIB,
    ropes=0,
    arena=5 * MIB,
    arena_now=0,
    tables=(Table("tokens", 30000, 1536, Path("a")), Table("positions", 512, 1536, Path("a"))),
)


def parts(plan: Plan) -> dict[str, int]:
    return {part.name.split(",")[0]: part.bytes for part in plan.parts}


def sizes(tokens: int) -> Sizes:
    return Sizes(tokens, windows=-(-tokens // 190), window_tokens=256, width=384, dimension=384)


# --- by sizes alone -------------------------------------------------------------------------------------------------


def test_what_is_resident_already_is_not_counted_twice() -> None:
    new = make_plan(sizes(10_000), FOOTPRINT, ProcessMemory(resident=84 * MIB, peak=86 * MIB, mapped=4 * MIB))
    assert parts(new)["process"] == 40 * MIB
    assert parts(new)["packed weights"] == 40 * MIB
    assert parts(new)["arena"] == 5 * MIB
    later = Footprint(**{name: getattr(FOOTPRINT, name) for name in FOOTPRINT.__slots__} | {"arena_now": 9 * MIB})
    used = make_plan(sizes(10_000), later, ProcessMemory(resident=123 * MIB, peak=124 * MIB, mapped=34 * MIB))
    assert parts(used)["process"] == 40 * MIB
    assert parts(used)["arena"] == 9 * MIB
    assert sum(parts(new).values()) == new.peak


def test_the_peak_so_far_is_the_least() -> None:
    plan = make_plan(sizes(1000), FOOTPRINT, ProcessMemory(resident=90 * MIB, peak=900 * MIB, mapped=0))
    assert plan.peak == 900 * MIB
    assert "(reached already)" in str(plan)
    assert plan.fits("900 MiB")
    assert not plan.fits(900 * MIB - 1)
    assert plan.largest == max(plan.parts, key=lambda part: part.bytes)
    with pytest.raises(InputError, match="memory is '2 parsecs'"):
        plan.fits("2 parsecs")


def test_more_tokens_never_take_less() -> None:
    process = ProcessMemory(resident=90 * MIB, peak=90 * MIB, mapped=0)
    plans = [make_plan(sizes(tokens), FOOTPRINT, process) for tokens in (1, 10, 100, 1000, 10**4, 10**5, 10**7, 10**9)]
    for before, after in pairwise(plans):
        assert all(b.bytes <= a.bytes for b, a in zip(before.parts, after.parts, strict=True))
    tables = 30000 * 1536 + 256 * 1536 + (1 << 16)
    assert parts(plans[-1])["embedding tables in the file"] == pytest.approx(tables, rel=1e-6)


def test_panels_in_the_file_come_into_memory_once() -> None:
    mapped = Footprint(**{name: getattr(FOOTPRINT, name) for name in FOOTPRINT.__slots__} | {"panels": 10 * MIB})
    new = make_plan(sizes(1000), mapped, ProcessMemory(resident=84 * MIB, peak=86 * MIB, mapped=4 * MIB))
    used = make_plan(sizes(1000), mapped, ProcessMemory(resident=104 * MIB, peak=106 * MIB, mapped=24 * MIB))
    plain = make_plan(sizes(1000), FOOTPRINT, ProcessMemory(resident=84 * MIB, peak=86 * MIB, mapped=4 * MIB))
    assert parts(new)["panels in the file"] == 10 * MIB
    assert new.peak == used.peak == plain.peak + 10 * MIB
    assert "panels in the file" not in parts(plain)


def test_text(minilm: Path) -> None:
    plan = Encoder(minilm, threads=1).plan(1000)
    lines = str(plan).splitlines()
    assert lines[0] == "a document of 1,000 tokens in 5 windows of at most 256"
    assert lines[1].startswith("1 thread (tier ")
    assert lines[1].endswith("packs of at most 256 tokens of each thread's own")
    assert lines[-1].split() == ["peak", f"{plan.peak / MIB:,.1f}", "MiB"]
    assert (plan.tokens, plan.windows, plan.window_tokens) == (1000, 5, 256)


@pytest.mark.parametrize("tokens", [0, -1, 1.5, True, "9", None, 1 << 31])
def test_bad_tokens(small: Path, tokens: Any) -> None:
    with pytest.raises(InputError, match=r"tokens is .*, expected an integer from 1 to"):
        Encoder(small, device="cpu").plan(tokens)


def test_the_reference_has_no_plan(small: Path) -> None:
    with pytest.raises(InputError, match=r"a plan needs the C\+\+ executor"):
        Encoder(small, device="cpu", backend="reference").plan()


# --- beside a real run ----------------------------------------------------------------------------------------------

# What was said before, and what VmHWM says after.
SCRIPT = """
    import json, re, sys
    from pathlib import Path
    from longspan import Encoder

    folder, tokens = sys.argv[1], int(sys.argv[3])
    layers = int(sys.argv[4]) or None
    encoder = Encoder(folder, device="cpu", threads=2, layers=layers)
    said = encoder.plan(tokens).peak
    text = Path(sys.argv[2]).read_text(encoding="utf-8")
    found = encoder.encode_chunks(text).n_tokens
    peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
    print(json.dumps([said, peak, found]))
"""


def document(folder: Path, tokens: int) -> str:
    """Prose of exactly so many tokens."""
    text = "\n\n".join(paragraphs())
    tokenizer = Encoder(folder).tokenizer
    counted = len(tokenizer.encode(text, add_special_tokens=False).ids)
    text = "\n\n".join([text] * -(-tokens // counted))
    ends = [end for _, end in tokenizer.encode(text, add_special_tokens=False).offsets]
    return text[: ends[tokens - 1]]


def said_and_reached(model: Path, tmp_path: Path, layers: int, tokens: int) -> tuple[int, int]:
    """What a plan says in a fresh process, and what is reached then; all layers where `layers` is 0."""
    path = tmp_path / "document.txt"
    path.write_text(document(model, tokens), encoding="utf-8")
    said, peak, found = json.loads(output_of(SCRIPT, model, path, tokens, layers, timeout=300))
    assert found == tokens
    return said, peak


@pytest.mark.slow
@pytest.mark.parametrize(("layers", "tokens"), [(0, 1000), (0, 32_000), (1, 200_000)])
def test_the_peak_is_what_was_said(minilm: Path, tmp_path: Path, layers: int, tokens: int) -> None:
    """Of 200,000 tokens with one layer only, so that it is not a matter of minutes."""
    said, peak = said_and_reached(minilm, tmp_path, layers, tokens)
    assert said == pytest.approx(peak, rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_the_peak_with_panels_in_the_file(minilm: Path, tmp_path: Path, weights: Any) -> None:
    Encoder(minilm, device="cpu", weights=weights).save(tmp_path / "saved")
    said, peak = said_and_reached(tmp_path / "saved", tmp_path, 0, 1000)
    assert said == pytest.approx(peak, rel=0.15)
