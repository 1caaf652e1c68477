"""The command `stream`: a large corpus through `Encoder.stream`, and the memory of the process meanwhile.

Every case runs in a process of its own, so that its peak is its own.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import re
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import corpus, machine, plot
from .model import model_folder
from .tiny import tiny_checkpoint

RESULTS = Path(__file__).parent / "results"
INTERVAL = 0.25  # seconds between looks at the memory
CHUNK_TOKENS = 256
MB = 1_000_000


@dataclass(frozen=True)
class Case:
    """What is streamed: how much, in which texts, and whether as chunks."""

    name: str
    model: Path
    characters: int
    text_characters: int | None
    chunk_tokens: int | None
    threads: int | None


@dataclass(frozen=True)
class Sample:
    """One look: seconds since the start, characters read so far, resident bytes now and at most."""

    seconds: float
    characters: int
    resident: int
    peak: int


@dataclass(frozen=True)
class Run:
    """What became of a case; `samples` starts when the model is loaded."""

    name: str
    texts: int
    vectors: int
    samples: list[Sample]

    def peak_after(self, share: float) -> int:
        """The peak when so much of the corpus had been read."""
        total = self.samples[-1].characters
        return next(sample.peak for sample in self.samples if sample.characters >= share * total)


class Watch:
    """Looks at the memory from a thread of its own, and counts what is read."""

    def __init__(self) -> None:
        self.characters = 0
        self.texts = 0
        self.samples: list[Sample] = []
        self._start = time.perf_counter()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._sample()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()

    def counted(self, texts: Iterator[str]) -> Iterator[str]:
        """The same texts."""
        for text in texts:
            self.characters += len(text)
            self.texts += 1
            yield text

    def _look(self) -> None:
        while not self._stop.wait(INTERVAL):
            self._sample()

    def _sample(self) -> None:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        resident, peak = (int(re.findall(rf"{name}:\s+(\d+) kB", status)[0]) * 1024 for name in ("VmRSS", "VmHWM"))
        self.samples.append(Sample(time.perf_counter() - self._start, self.characters, resident, peak))


def stream(case: Case) -> Run:
    """Stream one corpus; called in a fresh process."""
    warnings.simplefilter("ignore")
    encoder = importlib.import_module("longspan").Encoder(case.model, device="cpu", threads=case.threads)
    vectors = 0
    with Watch() as watch:
        given = watch.counted(corpus.synthetic(case.characters, text_characters=case.text_characters))
        for _ in encoder.stream(given, chunk_tokens=case.chunk_tokens):
            vectors += 1
    return Run(case.name, watch.texts, vectors, watch.samples)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks stream`."""
    parser.add_argument("--model", metavar="FOLDER", help="model folder (default: the installed model package)")
    parser.add_argument("--real", action="store_true", help="run the model itself, not a tiny one with its tokenizer")
    parser.add_argument("--size", type=_megabytes, default=200 * MB, metavar="MB", help="of the corpus (default: 200)")
    parser.add_argument(
        "--text-size", type=_megabytes, default=20 * MB, metavar="MB", help="of the huge texts (default: 20)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: one per physical core)")
    parser.add_argument("--output", type=Path, help="the JSON file; the plot goes beside it (default: in results/)")


def _megabytes(value: str) -> int:
    try:
        size = int(float(value) * MB)
    except ValueError:
        size = 0
    if size < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is no number of megabytes above 0")
    return size


def run(options: argparse.Namespace) -> int:
    """The command `stream`."""
    model = model_folder(options.model)
    description = machine.describe()
    print(machine.title(description), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        used = model if options.real else tiny_checkpoint(model, Path(folder))
        runs = []
        for case in _cases(used, options):
            # Spawned: a forked child would start with this process's memory.
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                runs.append(pool.apply(stream, (case,)))
            print(f"  {case.name}: {runs[-1].samples[-1].seconds:.0f} s", flush=True)
    print(table(runs))
    _save(options, description, runs)
    return 0


def _cases(model: Path, options: argparse.Namespace) -> Iterator[Case]:
    for texts, size in (("paragraphs", None), ("huge texts", options.text_size)):
        for what, chunk_tokens in (("vectors", None), ("chunks", CHUNK_TOKENS)):
            yield Case(f"{texts}, {what}", model, options.size, size, chunk_tokens, options.threads)


def table(runs: Sequence[Run]) -> str:
    """Aligned text: the peak after a quarter of the corpus, after half of it and at the end."""
    peaks = ("loaded", "peak at 25 %", "at 50 %", "at the end", "above loaded", "grown")
    head = ("", "texts", "vectors", "MB", "seconds", "MB/s", *peaks)
    rows: list[tuple[str, ...]] = [head]
    for one in runs:
        last = one.samples[-1]
        quarter, half = one.peak_after(0.25), one.peak_after(0.5)
        numbers = (
            f"{one.texts:,}",
            f"{one.vectors:,}",
            f"{last.characters / MB:,.1f}",
            f"{last.seconds:,.1f}",
            f"{last.characters / MB / last.seconds:.2f}",
            *(f"{size / (1 << 20):,.0f} MiB" for size in (one.samples[0].resident, quarter, half, last.peak)),
            f"{(last.peak - one.samples[0].resident) / (1 << 20):,.0f} MiB",
            f"{(last.peak - half) / half:+.1%}",
        )
        rows.append((one.name, *numbers))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]
    return "\n" + "\n".join("  ".join(line) for line in lines)


def _save(options: argparse.Namespace, description: dict[str, Any], runs: Sequence[Run]) -> None:
    path: Path = options.output or RESULTS / f"stream-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"machine": description, "tiny": not options.real, "runs": [asdict(one) for one in runs]}
    path.write_text(json.dumps(record) + "\n", encoding="utf-8")
    print(f"\nwritten: {path}")
    curves = {one.name: [(s.characters / MB, s.resident / (1 << 20)) for s in one.samples] for one in runs}
    labels = ("megabytes read", "resident MiB")
    try:
        plot.lines(curves, labels, "Encoder.stream", machine.title(description), path.with_suffix(".png"))
    except ImportError as error:
        print(f"no plot: {error}")
    else:
        print(f"written: {path.with_suffix('.png')}")
