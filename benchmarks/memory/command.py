"""The command `memory`: the peak of memory and the time of one text by its length, beside the peers."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from longspan.checkpoint.panels import PACKED_TYPES

from .. import exports, machine, peers, plot
from ..arguments import peer_names, positive, positives
from ..cpu import checkpoints, long, report
from ..cpu.setup import Setup
from ..model import model_folder
from ..quiet import quiet_libraries
from ..runner import Measurement
from . import ceilings

RESULTS = Path(__file__).parents[1] / "results"
PEERS = ("longspan-bf16", "longspan-int8", "openvino-bf16", "sentence-transformers-bf16")
TOKENS = (1024, 4096, 16384, 32768, 65536, 131072)
SHAPE = "4 layers of BERT-base's shape"

Curves = Mapping[str, Sequence[tuple[float, float]]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks memory`."""
    parser.add_argument("--model", metavar="FOLDER", help="whose tokenizer is used (default: the model package's)")
    parser.add_argument(
        "--peers", type=peer_names(peers.PEERS), metavar="A,B,C", help=f"what to run (default: {','.join(PEERS)})"
    )
    parser.add_argument(
        "--tokens", type=positives, default=TOKENS, metavar="N,N", help="lengths (default: 1024 to 131072)"
    )
    parser.add_argument(
        "--shape", choices=ceilings.SHAPES, help="instead, random weights of a real model's shape below ceilings, alone"
    )
    with_shape = parser.add_argument_group("with --shape")
    with_shape.add_argument(
        "--ceilings", default="none", metavar="SIZE,SIZE", help="such as none,1.5GiB,1GiB (default: none)"
    )
    with_shape.add_argument("--weights", choices=PACKED_TYPES, default="int8", help="their format (default: int8)")
    with_shape.add_argument("--texts", type=positive, default=1, metavar="N", help="how many (default: 1)")
    with_shape.add_argument(
        "--rounds", type=positive, default=1, metavar="N", help="how often, each ceiling in turn (default: 1)"
    )
    parser.add_argument("--exports", type=Path, metavar="FOLDER", help="keep what peers run from here")
    parser.add_argument("--output", type=Path, help="the JSON file; plots go beside it (default: in results/)")


def run(options: argparse.Namespace) -> int:
    """The command `memory`."""
    description = machine.describe()
    print(machine.title(description), flush=True)
    if options.shape:
        return _below_ceilings(options, description)
    with quiet_libraries(), exports.folder(options.exports) as folder:
        setup = Setup(model_folder(options.model), 1, folder, "")
        path = options.output or RESULTS / f"memory-{time.strftime('%Y%m%d-%H%M%S')}.json"
        found: dict[int, Sequence[Measurement]] = {}
        for tokens in options.tokens:  # a model of so many positions each: their table is a part of what it takes
            model = checkpoints.once(checkpoints.bert, setup.model, tokens, setup.exports)
            (task,) = long.run(setup, model, SHAPE, (tokens,), options.peers or PEERS)
            if task.results:
                print(report.table(task), flush=True)
                found[tokens] = task.results
                _save(path, description, found)  # after each length, as the next may take minutes
    if not found:
        print("nothing to measure")
        return 1
    print(f"\nwritten: {path}")
    _draw(path, description, found)
    return 0


def _below_ceilings(options: argparse.Namespace, description: dict[str, Any]) -> int:
    with quiet_libraries(), exports.folder(options.exports) as folder:
        model, below = model_folder(options.model), options.ceilings.split(",")
        found = {}
        for tokens in options.tokens:
            work = ceilings.Workload(options.shape, options.weights, tokens, options.texts)
            found[tokens] = ceilings.run(model, work, below, options.rounds, folder)
    path = options.output or RESULTS / f"memory-{options.shape}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {str(tokens): [asdict(each) for each in below] for tokens, below in found.items()}
    path.write_text(json.dumps({"machine": description, "tokens": record}, indent=2) + "\n", encoding="utf-8")
    print(f"written: {path}")
    return 0


def _save(path: Path, description: dict[str, Any], found: Mapping[int, Sequence[Measurement]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {str(tokens): [asdict(result) for result in results] for tokens, results in found.items()}
    path.write_text(json.dumps({"machine": description, "tokens": record}, indent=2) + "\n", encoding="utf-8")


def _draw(path: Path, description: dict[str, Any], found: Mapping[int, Sequence[Measurement]]) -> None:
    for kind, label, curves in (
        ("peak", "peak of resident memory, MB", _curves(found, lambda it: (it.peak_memory_bytes or 0) / 2**20)),
        ("seconds", "seconds", _curves(found, lambda it: statistics.median(it.seconds))),
    ):
        image = path.with_name(f"{path.stem}-{kind}.png")
        try:
            title = f"One text through {SHAPE}"
            plot.lines(curves, ("tokens", label), title, machine.title(description), image)
        except ImportError as error:
            print(f"no plot: {error}")
            return
        print(f"written: {image}")


def _curves(found: Mapping[int, Sequence[Measurement]], value: Callable[[Measurement], float]) -> Curves:
    curves: dict[str, list[tuple[float, float]]] = {}
    for tokens, results in found.items():
        for result in results:
            curves.setdefault(result.name, []).append((tokens, value(result)))
    return curves
