"""Runs implementations alternately and compares them round by round, so that a slow minute hits all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from . import machine
from .metrics import unit_rows
from .peers import Implementation, Setting, UnavailableError

TUNING_TEXTS = 150
# The smallest cosine to the reference that still counts as the same model in this precision.
LEAST_COSINE = {"float32": 0.9999, "bfloat16": 0.999, "int8": 0.95}
SINGLE_CALLS = 50  # latency: calls in a row per round
Report = Callable[[str], None]
Ratios = tuple[float, float, float]  # median, least and most over the rounds


@dataclass(frozen=True)
class Trial:
    """How long one setting took, on the texts that settings are chosen by."""

    setting: dict[str, int]
    seconds: float


@dataclass
class Measurement:
    """What was measured of one implementation."""

    name: str
    precision: str
    setting: dict[str, int] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)  # what the setting was chosen from; empty without a choice
    cosine_min: float | None = None  # to the reference's vectors of the same texts; None without a reference
    cosine_mean: float | None = None
    seconds: list[float] = field(default_factory=list)  # one per round
    latencies: list[float] = field(default_factory=list)  # seconds of a single query, the median of each round
    tokens: int = 0
    peak_memory_bytes: int | None = None  # VmHWM, where it has a process of its own

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / statistics.median(self.seconds)

    @property
    def latency_p50_ms(self) -> float | None:
        return 1e3 * statistics.median(self.latencies) if self.latencies else None

    def ratios(self, baseline: Measurement) -> Ratios:
        """How many times as fast as the baseline."""
        return _ratios(self.seconds, baseline.seconds)

    def latency_ratios(self, baseline: Measurement) -> Ratios:
        """How many times as soon as the baseline a single query is answered."""
        return _ratios(self.latencies, baseline.latencies)


def _ratios(own: Sequence[float], others: Sequence[float]) -> Ratios:
    ratios = [other / mine for mine, other in zip(own, others, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def settle(limit: float = 1.0, interval: float = 0.05) -> bool:
    """Waits until this process and its workers are idle, so that nobody runs beside another's spinning worker threads.

    OpenMP, TBB and ONNX Runtime keep their workers spinning for a while after each call. False if it never calmed.
    """
    deadline = time.perf_counter() + limit
    while time.perf_counter() < deadline:
        start = machine.processor_seconds()
        time.sleep(interval)
        if machine.processor_seconds() - start < 0.1 * interval:
            return True
    return False


def timed(implementation: Implementation, texts: list[str]) -> float:
    """Seconds of one call, starting from an idle process."""
    settle()
    start = time.perf_counter()
    implementation.encode(texts)
    return time.perf_counter() - start


def tune(implementation: Implementation, texts: list[str]) -> tuple[Setting, list[Trial]]:
    """Keeps the fastest of the implementation's settings: each is warmed once and then timed twice on a sample.

    They are for many texts: with one alone, the first is kept, and nothing is tried.
    """
    trials = []
    if len(implementation.settings) > 1 and len(texts) > 1:
        sample = texts[:TUNING_TEXTS]
        for setting in implementation.settings:
            implementation.use(setting)
            implementation.encode(sample)
            trials.append(Trial(dict(setting), min(timed(implementation, sample) for _ in range(2))))
    first: Setting = implementation.settings[0] if implementation.settings else {}
    chosen = min(trials, key=lambda trial: trial.seconds).setting if trials else first
    implementation.use(chosen)
    return chosen, trials


def cosines(vectors: NDArray[np.float32], reference: NDArray[np.float32]) -> tuple[float, float]:
    """Least and mean cosine between the rows of two matrices."""
    if vectors.shape != reference.shape:
        raise ValueError(f"vectors of shape {vectors.shape} beside a reference of shape {reference.shape}")
    products = np.sum(unit_rows(vectors) * unit_rows(reference), axis=1, dtype=np.float64)
    return float(products.min()), float(products.mean())


def check(result: Measurement, vectors: NDArray[np.float32], reference: NDArray[np.float32] | None) -> str:
    """Notes how close the vectors are to the reference; what is wrong with them, or nothing."""
    if reference is None:
        return ""
    result.cosine_min, result.cosine_mean = cosines(vectors, reference)
    if result.cosine_min >= LEAST_COSINE[result.precision]:
        return ""
    return f"its smallest cosine to the reference is {result.cosine_min:.5f}"


def measure(
    implementations: Sequence[Implementation],
    texts: list[str],
    tokens: int,
    *,
    rounds: int = 5,
    query: str | None = None,
    reference: NDArray[np.float32] | None = None,
    report: Report = lambda line: None,
) -> list[Measurement]:
    """Tunes and checks each implementation, then runs all of them in turn for `rounds` rounds.

    Which one starts a round moves on by one each time. `query` adds the latency of a single short text. Whoever is
    further from the reference than `LEAST_COSINE` is reported and not measured.
    """
    pairs = []
    for implementation in implementations:
        result = Measurement(implementation.name, implementation.precision, tokens=tokens)
        try:
            setting, result.trials = tune(implementation, texts)
            result.setting = dict(setting)
            vectors = implementation.encode(texts)  # also warms every batch shape
        except UnavailableError as error:  # its process ended: too little memory, as a rule
            report(f"left out {result.name}: {error}")
            continue
        if wrong := check(result, vectors, reference):
            report(f"left out {result.name}: {wrong}")
            continue
        pairs.append((implementation, result))
        report(f"checked {result.name} {result.setting or ''}".rstrip())

    for number in range(rounds if pairs else 0):
        shift = number % len(pairs)
        for implementation, result in pairs[shift:] + pairs[:shift]:
            result.seconds.append(timed(implementation, texts))
            if query is not None:
                result.latencies.append(_latency(implementation, query))
        report(f"round {number + 1} of {rounds}")
    return [result for _, result in pairs]


def _latency(implementation: Implementation, query: str) -> float:
    """The median of calls in a row, in seconds."""
    settle()
    seconds = []
    for call in range(SINGLE_CALLS + 5):
        start = time.perf_counter()
        implementation.encode([query])
        if call >= 5:  # the first few are warm-up
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
