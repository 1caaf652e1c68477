"""The benchmark's runner, with implementations that only pretend to work."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np
import pytest
from benchmarks import __main__, machine, peers, runner
from benchmarks.cpu import command
from numpy.typing import NDArray


class Fake:
    """Sleeps as long as its setting says and returns the lengths of the texts."""

    precision = "float32"
    obeys_tier = False

    def __init__(self, name: str, seconds: dict[int, float], calls: list[str]) -> None:
        self.name = name
        self.settings: Sequence[peers.Setting] = tuple({"batch": batch} for batch in seconds)
        self._seconds = seconds
        self._calls = calls
        self.batch = next(iter(seconds))

    def use(self, setting: peers.Setting) -> None:
        self.batch = setting["batch"]

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        self._calls.append(self.name)
        time.sleep(self._seconds[self.batch])
        return np.array([(len(text), 1) for text in texts], dtype=np.float32)


def test_alternates_tunes_and_compares() -> None:
    calls: list[str] = []
    slow, fast = Fake("slow", {1: 0.03}, calls), Fake("fast", {8: 0.03, 16: 0.003}, calls)
    texts = ["a", "bb"]
    first, second = runner.measure([slow, fast], texts, 100, rounds=2, reference=slow.encode(texts))
    assert calls[-4:] == ["slow", "fast", "fast", "slow"]  # the second round starts with the other
    assert second.setting == {"batch": 16}
    assert [trial.setting for trial in second.trials] == [{"batch": 8}, {"batch": 16}]
    assert second.trials[1].seconds < 0.03 <= second.trials[0].seconds
    assert first.setting == {"batch": 1}
    assert first.trials == []
    assert second.cosine_min == pytest.approx(1)
    ratio, low, high = second.ratios(first)
    assert 2 < low <= ratio <= high
    assert first.ratios(first) == (1, 1, 1)
    assert first.tokens_per_second < 100 / 0.03
    assert first.latency_p50_ms is None


def test_latency_is_of_single_texts() -> None:
    calls: list[str] = []
    slow, fast = Fake("slow", {1: 0.003}, calls), Fake("fast", {1: 0.001}, calls)
    first, second = runner.measure([slow, fast], ["a"], 1, rounds=2, query="why?")
    assert len(calls) > 2 * 2 * runner.SINGLE_CALLS
    assert len(first.latencies) == 2  # one a round
    assert first.latency_p50_ms is not None
    assert first.latency_p50_ms >= 3
    ratio, low, high = second.latency_ratios(first)
    assert 1 < low <= ratio <= high


def test_cosines_refuse_other_shapes() -> None:
    with pytest.raises(ValueError, match="shape"):
        runner.cosines(np.ones((2, 3), dtype=np.float32), np.ones((2, 4), dtype=np.float32))


def test_wrong_vectors_are_not_measured() -> None:
    right, wrong = Fake("right", {1: 0}, []), Fake("wrong", {1: 0}, [])
    lines: list[str] = []
    reference = np.array([(1, 1)], dtype=np.float32)
    wrong.encode = lambda texts: np.array([(1, 0.9)], dtype=np.float32)  # type: ignore[method-assign]
    results = runner.measure([right, wrong], ["a"], 1, rounds=1, reference=reference, report=lines.append)
    assert [result.name for result in results] == ["right"]
    assert any(line.startswith("left out wrong: ") for line in lines)


def test_one_text_is_not_for_choosing_a_setting() -> None:
    calls: list[str] = []
    (result,) = runner.measure([Fake("one", {8: 0, 16: 0}, calls)], ["a"], 1, rounds=1)
    assert result.setting == {"batch": 8}
    assert len(calls) == 2  # the check, the round


def test_a_missing_package_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> peers.Implementation:
        raise ModuleNotFoundError("No module named 'absent'")

    monkeypatch.setitem(peers.PEERS, "absent", (absent, "float32"))
    with pytest.raises(peers.UnavailableError, match="absent"):
        peers.make("absent", peers.Source(command.RESULTS, 256, command.RESULTS))


def test_machine_is_named() -> None:
    description = machine.describe()
    assert description["cores"] >= 1
    assert description["cpu"] in machine.title(description)
    assert machine.OtherLoad().cores() >= 0


@pytest.mark.parametrize("arguments", [["cpu", "--peers", "nobody"], ["cpu", "--rounds", "0"], ["quality"], []])
def test_wrong_commands_end_with_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        __main__.main(arguments)
    assert exit_info.value.code == 2
    assert "error" in capsys.readouterr().err


def test_missing_data_is_one_line(tmp_path: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(["quality", "--data", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "is not a BEIR folder" in error
    assert error.count("\n") == 1


def test_options_have_defaults() -> None:
    options: argparse.Namespace = __main__.parser().parse_args(["cpu"])
    assert options.workload in command.WORKLOADS
    assert all(name in peers.PEERS for names in command.WORKLOADS.values() for name in names)
