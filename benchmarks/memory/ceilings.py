"""Texts below ceilings: what the plan says, what the process reaches, how long it takes, each in a fresh process."""

from __future__ import annotations

import multiprocessing
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from longspan import Encoder
from longspan.weights import Format

from .. import machine, texts
from . import shapes

SHAPES: dict[str, Callable[[int], shapes.Config]] = {
    "qwen3-0.6b": lambda positions: {**shapes.QWEN3_06B, "max_position_embeddings": positions},
    "llama-7b": lambda positions: {**shapes.LLAMA_7B, "max_position_embeddings": positions},
    "bert-base": lambda positions: shapes.bert_base(12, positions),
}
"""Models of these shapes, with so many positions."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What is embedded.

    Attributes:
        shape: of `SHAPES`.
        weights: their format, "int8" or "bfloat16".
        tokens: of each text; the model has so many positions.
        texts: how many.
    """

    shape: str
    weights: Format
    tokens: int
    texts: int


@dataclass(frozen=True, slots=True)
class Found:
    """What came of one ceiling.

    Attributes:
        memory: the ceiling; "none" for none.
        plan: in words, for one text.
        predicted, peak: bytes.
        seconds: to embed the texts, after loading.
    """

    memory: str
    plan: str
    predicted: int
    peak: int
    seconds: float


def run(model: Path, work: Workload, ceilings: Sequence[str], rounds: int, folder: Path) -> list[Found]:
    """The same texts below each of the ceilings in turn, so many times."""
    config = SHAPES[work.shape](work.tokens)
    saved = shapes.write(config, work.weights, model, folder / f"{work.shape}-{work.weights}-{work.tokens}")
    context = multiprocessing.get_context("spawn")
    found = []
    for memory in [*ceilings] * rounds:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            found.append(pool.submit(measure, saved, memory, work).result())
        print(_line(found[-1], found[-1 - (len(found) - 1) % len(ceilings)]), flush=True)
    return found


def measure(folder: Path, memory: str, work: Workload) -> Found:
    """One ceiling, in this process."""
    encoder = Encoder(folder, device="cpu", memory=None if memory == "none" else memory, long_text="truncate")
    encoder.max_seq_length = work.tokens  # the tokenizer is another model's, and so is the length that it names
    plan = encoder.plan(work.tokens)
    text = " ".join(texts.paragraphs()[:100] * (work.tokens // 4000 + 1))
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is longer on purpose
        encoder.encode([f"{number} {text}" for number in range(work.texts)])
    return Found(memory, str(plan), plan.peak, machine.peak_memory_bytes(), time.perf_counter() - start)


def _line(found: Found, first: Found) -> str:
    predicted, peak = found.predicted / 2**20, found.peak / 2**20
    return (
        f"  memory {found.memory}: predicted {predicted:,.0f} MiB, reached {peak:,.0f} MiB, {found.seconds:.1f} s, "
        f"{first.seconds / found.seconds:.0%} of the throughput with memory {first.memory}"
    )
