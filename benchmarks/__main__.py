"""`python -m benchmarks COMMAND`: see `--help`."""

from __future__ import annotations

import argparse
import sys

from . import beir, model, quality, search, stream, texts
from .cpu import command as cpu
from .kernels import command as kernels
from .long import command as long
from .memory import command as memory


def parser() -> argparse.ArgumentParser:
    """The command line: one sub-command per kind of measurement."""
    root = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Longspan beside its peers, on this machine."
    )
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module, text in (
        (
            "cpu",
            cpu,
            "speed, latency, start-up and memory on this machine's CPU, beside the peers, one workload at a time",
        ),
        ("kernels", kernels, "single products and attentions beside the machine's ceilings and torch's, tier by tier"),
        ("search", search, "exact top-k search in several precisions, beside numpy and sentence-transformers"),
        ("quality", quality, "retrieval quality (nDCG@10, recall@100, MRR@10) on a BEIR folder"),
        ("long", long, "late chunking beside chunks embedded alone, on long documents"),
        ("memory", memory, "the peak of memory and the time of one text by its length, beside the peers"),
        ("stream", stream, "memory while a large corpus goes through Encoder.stream, which should stay flat"),
    ):
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return root


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; problems with the given files or packages end in one line and exit code 2."""
    options = parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (beir.DataError, model.ModelNotFoundError, texts.TextsError, ModuleNotFoundError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
