"""The command `cpu`: Longspan and its peers alternately, each beside the best peer of its precision."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

from .. import exports, machine, peers, texts
from ..arguments import peer_names, positive, positives
from ..model import model_folder
from ..quiet import quiet_libraries
from . import checkpoints, isa, long, report, short, startup
from .setup import Setup

RESULTS = Path(__file__).parents[1] / "results"

# Which peers there are in a workload: those that can do it at all, within hours and gigabytes.
WORKLOADS: Mapping[str, tuple[str, ...]] = {
    "texts": tuple(peers.PEERS),
    "long": (
        *("longspan", "longspan-bf16", "longspan-int8", "openvino", "openvino-bf16", "openvino-int8"),
        *("sentence-transformers", "sentence-transformers-bf16"),
    ),
    "modernbert": ("longspan-bf16", "openvino-bf16", "sentence-transformers-bf16"),
    "startup": tuple(startup.STARTS),
}

# Workloads of one text: the checkpoint's shape, in words too, and how long the text is.
SHAPES: Mapping[str, tuple[checkpoints.Maker, str, tuple[int, ...]]] = {
    "long": (checkpoints.bert, "4 layers of BERT-base's shape", (8192, 32768)),
    "modernbert": (checkpoints.modernbert, "ModernBERT-base's shape", (8192,)),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks cpu`."""
    parser.add_argument(
        "--workload",
        choices=WORKLOADS,
        default="texts",
        help="texts: mixed short texts and one query (the default); long: one text through 4 layers of BERT-base's "
        "shape; modernbert: one text through ModernBERT-base's shape; startup: from a process's start to a vector",
    )
    parser.add_argument("--model", metavar="FOLDER", help="model folder (default: the installed model package)")
    parser.add_argument(
        "--peers", type=peer_names(peers.PEERS), metavar="A,B,C", help="what to run (default: all of the workload)"
    )
    parser.add_argument(
        "--isa", choices=isa.TIERS, help="hold Longspan and the peers that obey to this tier of instructions"
    )
    parser.add_argument("--rounds", type=positive, help="timed rounds (default: 5; 2 of long texts)")
    parser.add_argument("--texts", type=positive, default=texts.COUNT, help=f"how many texts (default: {texts.COUNT})")
    parser.add_argument(
        "--max-length", type=positive, default=256, help="short texts are cut at this many tokens (default: 256)"
    )
    parser.add_argument(
        "--tokens", type=positives, metavar="N,N", help="lengths of a long text (default: 8192,32768; modernbert: 8192)"
    )
    parser.add_argument("--no-latency", action="store_true", help="leave out the latency of a single query")
    parser.add_argument(
        "--exports", type=Path, metavar="FOLDER", help="keep the files that peers run from here (default: made anew)"
    )
    parser.add_argument("--output", type=Path, help="the JSON file; plots go beside it (default: in results/)")


def run(options: argparse.Namespace) -> int:
    """The command `cpu`."""
    if options.isa:
        isa.hold(options.isa)
    with quiet_libraries():
        return _measure(options)


def _measure(options: argparse.Namespace) -> int:
    description = machine.describe()
    print(machine.title(description), flush=True)
    with exports.folder(options.exports) as folder:
        setup = Setup(model_folder(options.model), _rounds(options), folder, options.isa or "")
        setup.look_up()
        other_load = machine.OtherLoad()
        tasks = _tasks(options, setup)
    if not any(task.results for task in tasks):
        print("nothing to measure")
        return 1
    description["other_load_cores"] = round(other_load.cores(), 2)
    for task in tasks:
        print(report.table(task))
    if options.isa:
        print(isa.report(options.isa, setup.obeyed))
    if description["other_load_cores"] > 0.1:
        print(f"other processes kept {description['other_load_cores']} cores busy meanwhile: these figures are rough")
    path = options.output or RESULTS / f"cpu-{options.workload}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    settings = {"workload": options.workload, "rounds": setup.rounds, "isa": options.isa}
    report.save(path, description, settings | {"obeyed": setup.obeyed, "skipped": setup.skipped}, tasks)
    return 0


def _rounds(options: argparse.Namespace) -> int:
    return int(options.rounds or (2 if options.workload in SHAPES else 5))


def _tasks(options: argparse.Namespace, setup: Setup) -> list[report.Task]:
    names = options.peers or WORKLOADS[options.workload]
    if options.workload == "texts":
        return [short.run(setup, names, options.texts, options.max_length, not options.no_latency)]
    if options.workload == "startup":
        return [startup.run(setup, names, options.max_length)]
    make, shape, lengths = SHAPES[options.workload]
    lengths = options.tokens or lengths
    model = checkpoints.once(make, setup.model, max(lengths), setup.exports)
    return long.run(setup, model, shape, lengths, names)
