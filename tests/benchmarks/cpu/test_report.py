"""Ceilings, ratios and tables, from measurements that are made up."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from benchmarks import machine
from benchmarks.cpu import isa, report
from benchmarks.cpu.ceilings import ceilings, operations
from benchmarks.runner import Measurement, Trial


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


def answered(name: str, seconds: float, *latencies: float) -> Measurement:
    return dataclasses.replace(measured(name, "float32", seconds, seconds), latencies=list(latencies))


def test_latencies_are_compared_with_the_soonest_peer(tmp_path: Path) -> None:
    """Another one than the peer with the most tokens per second, and no Longspan."""
    results = [
        answered("many", 1, 0.008, 0.008),
        answered("soon", 2, 0.002, 0.004),
        answered("longspan", 3, 0.001, 0.001),
    ]
    lines = report.table(report.Task("queries", results)).splitlines()
    assert lines[2].split("  ")[-1].strip() == "to the best p50 of a peer"
    assert [line.split("ms")[1].strip() for line in lines[4:]] == [
        "0.38 (0.25 - 0.50)",
        "the best peer",
        "3.00 (2.00 - 4.00)",
    ]
    report.save(tmp_path / "figures.json", machine.describe(), {}, [report.Task("queries", results)])
    written = json.loads((tmp_path / "figures.json").read_text())["tasks"][0]["results"][2]
    assert written["latencies"] == [0.001, 0.001]
    assert written["latency_baseline"] == "soon"
    assert written["latency_ratio"] == [3.0, 2.0, 4.0]


def test_no_ratio_of_latencies_is_to_a_peer_that_did_not_keep_to_the_tier() -> None:
    results = [answered("soon", 2, 0.002), answered("late", 1, 0.004)]
    assert report.Task("queries", results, free=frozenset({"soon"})).latency_baseline("float32") is results[1]


def beside() -> report.Task:
    """As `task`, with a peer in bfloat16 that ran alternately with those in int8."""
    return dataclasses.replace(task(), beside={"int8": measured("other", "bfloat16", 1, 2)})


def test_a_peer_in_another_precision_is_compared_with_where_it_ran_too(tmp_path: Path) -> None:
    *_, longspan, other = report.table(dataclasses.replace(beside(), operations=0.0)).splitlines()
    assert longspan.split("  ")[1:2] == ["longspan-int8"]
    assert "no peer" in longspan
    assert "3.00 (2.00 - 4.00)" in longspan
    assert other.split()[0] == "other"
    assert "in bfloat16" in other
    report.save(tmp_path / "figures.json", machine.describe(), {}, [beside()])
    written = json.loads((tmp_path / "figures.json").read_text())["tasks"][0]
    assert written["results"][3]["across"] == "other"
    assert written["results"][3]["ratio_across"] == [3.0, 2.0, 4.0]
    assert written["results"][2]["across"] is None
    assert written["beside"]["int8"]["seconds"] == [1, 2]


def test_no_ratio_is_to_a_peer_in_another_precision_that_did_not_keep_to_the_tier() -> None:
    assert dataclasses.replace(beside(), free=frozenset({"other"})).across("int8") is None


def test_settings_are_written_with_their_seconds(tmp_path: Path) -> None:
    result = dataclasses.replace(measured("tuned", "float32", 1), trials=[Trial({"streams": 1}, 0.5)])
    report.save(tmp_path / "figures.json", machine.describe(), {}, [report.Task("tuned", [result])])
    (written,) = json.loads((tmp_path / "figures.json").read_text())["tasks"][0]["results"]
    assert written["trials"] == [{"setting": {"streams": 1}, "seconds": 0.5}]


def test_columns_without_values_are_left_out() -> None:
    header = report.table(task()).splitlines()[2]
    assert "tokens/s" in header
    assert "query" not in header
    assert "p50" not in header
    assert "another precision" not in header
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
