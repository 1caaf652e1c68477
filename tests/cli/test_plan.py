"""`longspan plan`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from longspan import Encoder

Run = Callable[..., Any]


def test_lines(longspan: Run, tiny: Path) -> None:
    ran = longspan("plan", tiny, "--tokens", 5000, "--threads", 1)
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == "a document of 5,000 tokens in 107 windows of at most 64"
    names = [line.rsplit(maxsplit=2)[0].strip() for line in lines[3:]]
    assert names[:6] == [part.name for part in Encoder(tiny).plan().parts]
    assert names[-1] == "peak"


def test_fits(longspan: Run, tiny: Path) -> None:
    ran = longspan("plan", tiny, "--memory", "1 TB")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.endswith("\n\nfits 953,674.3 MiB\n")
    ran = longspan("plan", tiny, "--memory", "3000000")
    assert (ran.code, ran.err) == (1, "")
    assert ran.out.startswith("DOES NOT FIT: memory is 2.9 MiB, but this process has had ")


def test_json(longspan: Run, tiny: Path) -> None:
    report = json.loads(longspan("plan", tiny, "--json", "--tokens", 7, "--threads", 1).out)
    assert (report["tokens"], report["windows"], report["window_tokens"]) == (7, 1, 9)
    assert (report["threads"], report["schedule"]) == (1, "packs")
    assert report["peak"] == max(report["reached"], sum(part["bytes"] for part in report["parts"]))
    assert (report["memory"], report["fits"]) == (None, None)
    ran = longspan("plan", tiny, "--json", "--memory", "1kB")
    assert ran.code == 1
    report = json.loads(ran.out)
    assert (report["memory"], report["fits"]) == (1000, False)
    assert report["smallest"] > 1 << 20
    report = json.loads(longspan("plan", tiny, "--json", "--memory", "1TB").out)
    assert (report["memory"], report["fits"], report["kept_stages"], report["tables_kept"]) == (10**12, True, 0, False)


@pytest.mark.parametrize("size", ["", "-1", "2 parsecs", "0"])
def test_what_is_no_size(longspan: Run, tiny: Path, size: str) -> None:
    assert "expected bytes, or a size such as '350 MB' or '2GiB'" in longspan("plan", tiny, f"--memory={size}").error


def test_bad_tokens(longspan: Run, tiny: Path) -> None:
    assert "'0' is no integer of at least 1" in longspan("plan", tiny, "--tokens", 0).error
    assert longspan("plan", tiny, "--tokens", 10**12).error == (
        "tokens is 1000000000000, expected an integer from 1 to 2147483647"
    )
