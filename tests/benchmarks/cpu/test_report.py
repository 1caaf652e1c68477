"""Ceilings, ratios and tables, from measurements that are made up."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from benchmarks import machine
from benchmarks.cpu import isa, report
from benchmarks.cpu.ceilings import ceilings, operations
from benchmarks.runner import Measurement


def measured(name: str, precision: str, *seconds: float) -> Measurement:
    return Measurement(name, precision, seconds=list(seconds), tokens=100, cosine_min=1.0, cosine_mean=1.0)


def task() -> report.Task:
    results = [
        measured("slow", "float32", 4, 4),
        measured("best", "float32", 2, 3),
        measured("longspan", "float32", 1, 2),
        measured("longspan-int8", "int8", 0.5, 0.5),
    ]
    return report.Task("everything", results, operations=6e9, ceilings={"float32": 8e9})


def test_ratios_are_to_the_best_peer_of_the_same_precision() -> None:
    lines = report.table(task()).splitlines()
    assert [line.split()[0] for line in lines[3:-1]] == ["float32", "longspan", "best", "slow", "int8", "longspan-int8"]
    assert "1.75 (1.50 - 2.00)" in lines[4]
    assert "50%" in lines[4]  # 6e9 operations in 1.5 seconds of 8e9 a second
    assert "the best peer" in lines[5]
    assert "no peer" in lines[8]
    assert "float32 8 GFLOP/s" in lines[-1]


def test_no_ratio_is_to_a_peer_that_did_not_keep_to_the_tier() -> None:
    lines = report.table(dataclasses.replace(task(), free=frozenset({"best"}))).splitlines()
    assert lines[5].split()[:2] == ["best", "*"]
    assert "the best peer" in lines[6]


def test_columns_without_values_are_left_out() -> None:
    header = report.table(task()).splitlines()[2]
    assert "tokens/s" in header
    assert "query" not in header
    assert "peak" not in header


def test_written_files(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "new" / "figures.json"
    report.save(path, machine.describe(), {"rounds": 2}, [task()])
    results = json.loads(path.read_text())["tasks"][0]["results"]
    assert results[2]["ratio"] == [1.75, 1.5, 2.0]
    assert results[2]["share_of_ceiling"] == 0.5
    assert results[3]["baseline"] is None
    assert path.with_suffix(".png").stat().st_size > 1000


def test_operations_of_bert() -> None:
    config = {"hidden_size": 4, "intermediate_size": 16, "num_hidden_layers": 2}
    linears = 2 * 2 * (4 * 4 * 4 + 2 * 4 * 16)  # a token
    assert operations(config, [3, 5]) == 8 * linears + 2 * 4 * 4 * (9 + 25)


def test_operations_of_modernbert_count_windows() -> None:
    config = {
        "model_type": "modernbert",
        "hidden_size": 4,
        "intermediate_size": 8,
        "num_hidden_layers": 4,
        "global_attn_every_n_layers": 3,
        "local_attention": 128,
    }
    linears = 2 * 4 * (4 * 4 * 4 + 3 * 4 * 8)
    scores = 2 * 1000 * 1000 + 2 * 1000 * 129  # layers 0 and 3 see all
    assert operations(config, [1000]) == 1000 * linears + 4 * 4 * scores


def test_ceilings_are_of_this_machine() -> None:
    assert ceilings("")["float32"] > 1e9


def test_a_tier_is_named_with_those_that_keep_to_it() -> None:
    line = isa.report("v3", {"longspan": True, "openvino": True, "onnxruntime": False})
    assert line == "held to v3: longspan, openvino; not held (*), they use all that the processor has: onnxruntime"
