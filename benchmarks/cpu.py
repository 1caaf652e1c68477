"""The command `cpu`: tokens per second on mixed real texts, and the latency of one short query."""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import machine, peers, plot, runner, texts
from .arguments import positive
from .batches import Batcher
from .model import model_folder

RESULTS = Path(__file__).parent / "results"
REFERENCE = "sentence-transformers"
QUERY = "How do I read a large file line by line in Python?"  # 15 tokens for a BERT tokenizer


def _peer_names(value: str) -> list[str]:
    names = list(dict.fromkeys(value.split(",")))
    for name in names:
        if name not in peers.PEERS:
            raise argparse.ArgumentTypeError(f"unknown peer {name!r}; known are {', '.join(peers.PEERS)}")
    return names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks cpu`."""
    names = ",".join(peers.PEERS)
    parser.add_argument("--model", metavar="FOLDER", help="model folder (default: the installed model package)")
    parser.add_argument(
        "--peers", type=_peer_names, default=names, metavar="A,B,C", help=f"what to run (default: {names})"
    )
    parser.add_argument("--baseline", default=REFERENCE, help=f"what ratios are to (default: {REFERENCE})")
    parser.add_argument("--rounds", type=positive, default=5, help="timed rounds (default: 5)")
    parser.add_argument("--texts", type=positive, default=texts.COUNT, help=f"how many texts (default: {texts.COUNT})")
    parser.add_argument(
        "--max-length", type=positive, default=256, help="texts are cut at this many tokens (default: 256)"
    )
    parser.add_argument("--output", type=Path, help="the JSON file; the plot goes beside it (default: in results/)")
    parser.add_argument("--no-latency", action="store_true", help="leave out the single-query latency")


def run(options: argparse.Namespace) -> int:
    """The command `cpu`."""
    _quiet_libraries()
    model = model_folder(options.model)
    sample = texts.paragraphs(options.texts)
    batcher = Batcher(model, options.max_length)
    tokens = sum(map(len, batcher.tokenize(sample)))
    description = machine.describe()
    print(machine.title(description))
    print(f"{len(sample):,} texts, {tokens:,} tokens, at most {options.max_length} each", flush=True)

    implementations, skipped = _load(options.peers, model, options.max_length)
    if not implementations:
        print("nothing to measure")
        return 1
    reference = next((peer for peer in implementations if peer.name == REFERENCE), None)
    other_load = machine.OtherLoad()
    results = runner.measure(
        implementations,
        sample,
        tokens,
        rounds=options.rounds,
        query=None if options.no_latency else QUERY,
        reference=reference.encode(sample) if reference is not None else None,
        report=lambda line: print(f"  {line}", flush=True),
    )
    baseline = next((result for result in results if result.name == options.baseline), results[0])
    description["other_load_cores"] = round(other_load.cores(), 2)
    ceiling = _ceiling(model, tokens / len(sample))
    print(table(results, baseline, ceiling))
    if description["other_load_cores"] > 0.1:
        print(
            f"\nOther processes kept {description['other_load_cores']} cores busy meanwhile: these figures are rough."
        )
    _save(options, description, results, baseline, skipped, ceiling, model)
    return 0


def _load(names: Sequence[str], model: Path, max_length: int) -> tuple[list[peers.Implementation], dict[str, str]]:
    """What can run here, and why the others cannot."""
    implementations: list[peers.Implementation] = []
    skipped: dict[str, str] = {}
    for name in names:
        try:
            implementations.append(peers.make(name, model, max_length))
        except peers.UnavailableError as error:
            skipped[name] = str(error)
            print(f"  skipped {name}: {error}", flush=True)
    return implementations, skipped


def _ceiling(model: Path, mean_tokens: float) -> dict[str, float] | None:
    """What the cores could do at most: float32 operations per second, and tokens per second for this model's work."""
    try:
        csrc = importlib.import_module("longspan._csrc")
        peak = max(csrc.peak_gflops("", machine.cores()) for _ in range(5))  # the best: anything else only disturbs
    except (ImportError, AttributeError):
        return None
    config: dict[str, Any] = json.loads((model / "config.json").read_text(encoding="utf-8"))
    width, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    linears = 2 * layers * (4 * width * width + 2 * width * inner)
    attention = 4 * layers * width * mean_tokens  # a little low: long texts weigh more
    return {"gflops": peak, "tokens_per_second": peak * 1e9 / (linears + attention)}


def table(
    results: Sequence[runner.Measurement], baseline: runner.Measurement, ceiling: dict[str, float] | None = None
) -> str:
    """The results as aligned text, fastest first."""
    width = 3 + max(len(f"{result.name} {result.precision}") for result in results)
    lines = [f"\n{'':{width}}{'tokens/s':>9}  {'ratio (least - most)':<22}{'cosine min / mean':<20}{'query p50':>9}"]
    for result in sorted(results, key=lambda item: -item.tokens_per_second):
        ratio, low, high = result.ratios(baseline)
        name = f"{result.name} {result.precision}" if result.precision == "float32" else result.name
        cosine = f"{result.cosine_min:.5f} / {result.cosine_mean:.5f}" if result.cosine_min is not None else "-"
        latency = f"{result.latency_p50_ms:.2f} ms" if result.latency_p50_ms is not None else "-"
        spread = f"{ratio:5.2f}  ({low:.2f} - {high:.2f})"
        lines.append(f"{name:<{width}}{result.tokens_per_second:>9,.0f}  {spread:<22}{cosine:<20}{latency:>9}")
    if ceiling is not None:
        lines.append(
            f"\nfloat32 ceiling: {ceiling['gflops']:,.0f} GFLOP/s, {ceiling['tokens_per_second']:,.0f} tokens/s"
        )
        for result in results:
            if result.name == "longspan":
                share = result.tokens_per_second / ceiling["tokens_per_second"]
                lines.append(f"longspan reaches {share:.0%} of it, tokenising included")
    return "\n".join(lines)


def _save(
    options: argparse.Namespace,
    description: dict[str, Any],
    results: Sequence[runner.Measurement],
    baseline: runner.Measurement,
    skipped: dict[str, str],
    ceiling: dict[str, float] | None,
    model: Path,
) -> None:
    """Writes the JSON, and the plot if matplotlib is there."""
    path: Path = options.output or RESULTS / f"cpu-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "machine": description,
        "model": model.name if options.model else "all-MiniLM-L6-v2",
        "texts": options.texts,
        "rounds": options.rounds,
        "baseline": baseline.name,
        "ceiling": ceiling,
        "skipped": skipped,
        "results": [
            asdict(result)
            | {"tokens_per_second": result.tokens_per_second, "ratio": result.ratios(baseline)}
            | {"latencies": None, "latency_p50_ms": result.latency_p50_ms}
            for result in results
        ],
    }
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten: {path}")
    title = f"{record['model']}, {options.texts:,} texts of {results[0].tokens / options.texts:.0f} tokens on average"
    try:
        plot.bars(results, baseline, title, machine.title(description), path.with_suffix(".png"))
    except ImportError as error:
        print(f"no plot: {error}")
    else:
        print(f"written: {path.with_suffix('.png')}")


def _quiet_libraries() -> None:
    """Peers report their own progress and versions; none of it belongs in the output."""
    warnings.simplefilter("ignore")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    for name in ("transformers", "sentence_transformers", "onnxruntime"):
        logging.getLogger(name).setLevel(logging.ERROR)
