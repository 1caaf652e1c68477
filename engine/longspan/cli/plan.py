"""`longspan plan`: how a long document would be run, and whether it fits the memory."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from ..byte_sizes import in_mib
from ..errors import MemoryCeilingError
from .options import add_command, add_json, add_memory, add_model, positive
from .terminal import show, show_json

DESCRIPTION = """\
Shows how one document of so many tokens would be embedded in chunks on this machine, and what the process would have
resident at its peak, part by part. The model is loaded, so its weights are counted and not guessed; nothing is
embedded. With --memory it is how the document is embedded below that ceiling; the exit code is 1 where there is no way,
and the lowest ceiling that would do is said."""
EXAMPLE = "example:\n  longspan plan sentence-transformers/all-MiniLM-L6-v2 --tokens 200000 --memory 350MB"


def add_parser(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    parser = add_command(commands, "plan", run, "how a long document would run, and its memory", DESCRIPTION, EXAMPLE)
    add_model(parser, option=False)
    parser.add_argument("--tokens", type=positive, default=32768, metavar="N", help="of the document (default: 32768)")
    add_memory(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from ..encoder import Encoder

    model = {"model": args.model, "memory": args.memory}
    try:
        encoder = Encoder(args.model, device="cpu", weights=args.weights, threads=args.threads, memory=args.memory)
        plan = encoder.plan(args.tokens)
    except MemoryCeilingError as error:
        if args.json:
            show_json({**model, "fits": False, "smallest": error.smallest, "error": str(error)})
        else:
            show((f"DOES NOT FIT: {error}",))
        return 1
    if args.json:
        show_json({**model, **asdict(plan), "peak": plan.peak, "fits": None if args.memory is None else True})
    else:
        show(str(plan).splitlines())
        if args.memory is not None:
            show(("", f"fits {in_mib(args.memory)} MiB"))
    return 0
