"""The command `cpu`: Longspan and its peers alternately, each beside the best peer of its precision."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
ALL = "all"

# Workloads of one text: the checkpoint's shape, in words too, and how long the text is.
SHAPES: Mapping[str, tuple[checkpoints.Maker, str, tuple[int, ...]]] = {
    "long": (checkpoints.bert, "4 layers of BERT-base's shape", (8192, 32768)),
    "modernbert": (checkpoints.modernbert, "ModernBERT-base's shape", (8192,)),
}

# By precision, the peer in another one that a long text would be given to today.
BESIDE: Mapping[str, str] = {"int8": "openvino-bf16"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks cpu`."""
    parser.add_argument(
        "--workload",
        choices=(*WORKLOADS, ALL),
        default="texts",
        help="texts: mixed short texts and one query (the default); long: one text through 4 layers of BERT-base's "
        "shape; modernbert: one text through ModernBERT-base's shape; startup: from a process's start to a vector; "
        "all: these one after another, each of the peers where it takes part, with a JSON file each",
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
    parser.add_argument(
        "--output",
        type=Path,
        help="the JSON file, of all workloads with their names added; plots go beside it (default: in results/)",
    )


def run(options: argparse.Namespace) -> int:
    """The command `cpu`."""
    if options.isa:
        isa.hold(options.isa)
    with quiet_libraries():
        return _measure(options)


def _measure(options: argparse.Namespace) -> int:
    description = machine.describe()
    print(machine.title(description), flush=True)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    with exports.folder(options.exports) as folder:
        written = [
            _workload(options, workload, folder, description, _path(options, workload, stamp))
            for workload in (WORKLOADS if options.workload == ALL else (options.workload,))
        ]
    return 0 if any(written) else 1


def _path(options: argparse.Namespace, workload: str, stamp: str) -> Path:
    output: Path | None = options.output
    if output is None:
        return RESULTS / f"cpu-{workload}-{stamp}.json"
    return output.with_name(f"{output.stem}-{workload}{output.suffix}") if options.workload == ALL else output


def _workload(
    options: argparse.Namespace, workload: str, folder: Path, description: Mapping[str, Any], path: Path
) -> bool:
    """Measures one workload, prints it and writes it to `path`; whether there was anything to measure."""
    if options.workload == ALL:
        print(f"\n{workload}", flush=True)
    # Its own: who is skipped in one workload may take part in the next.
    setup = Setup(model_folder(options.model), _rounds(options, workload), folder, options.isa or "")
    setup.look_up()
    other_load = machine.OtherLoad()
    tasks = _tasks(options, workload, setup)
    if not any(task.results for task in tasks):
        print("nothing to measure")
        return False
    load = round(other_load.cores(), 2)
    for task in tasks:
        print(report.table(task))
    if options.isa:
        print(isa.report(options.isa, setup.obeyed))
    if load > 0.1:
        print(f"other processes kept {load} cores busy meanwhile: these figures are rough")
    settings = {"workload": workload, "rounds": setup.rounds, "isa": options.isa}
    settings |= {"obeyed": setup.obeyed, "skipped": setup.skipped}
    report.save(path, {**description, "other_load_cores": load}, settings, tasks)
    return True


def _rounds(options: argparse.Namespace, workload: str) -> int:
    return int(options.rounds or (2 if workload in SHAPES else 5))


def _names(options: argparse.Namespace, workload: str) -> Sequence[str]:
    """Who takes part: of all workloads, the wanted peers that can do this one; of one alone, all that are wanted."""
    if options.workload == ALL and options.peers:
        return [name for name in options.peers if name in WORKLOADS[workload]]
    return options.peers or WORKLOADS[workload]


def _tasks(options: argparse.Namespace, workload: str, setup: Setup) -> list[report.Task]:
    names = _names(options, workload)
    if not names:
        return []
    if workload == "texts":
        return [short.run(setup, names, options.texts, options.max_length, not options.no_latency)]
    if workload == "startup":
        return [startup.run(setup, names, options.max_length)]
    make, shape, lengths = SHAPES[workload]
    lengths = options.tokens or lengths
    model = checkpoints.once(make, setup.model, max(lengths), setup.exports)
    return long.run(setup, model, shape, lengths, names, BESIDE)
