"""`longspan plan`: how a long document would be run, and whether it fits the memory."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from ..byte_sizes import in_mib
from .options import add_command, add_json, add_model, memory_size, positive
from .terminal import show, show_json

DESCRIPTION = """\
Shows how one document of so many tokens would be embedded in chunks on this machine, and what the process would have
resident at its peak, part by part. The model is loaded, so its weights are counted and not guessed; nothing is
embedded. With --memory, the exit code is 1 if the peak is higher."""
EXAMPLE = "example:\n  longspan plan sentence-transformers/all-MiniLM-L6-v2 --tokens 200000 --memory 350MB"


def add_parser(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    parser = add_command(commands, "plan", run, "how a long document would run, and its memory", DESCRIPTION, EXAMPLE)
    add_model(parser, option=False)
    parser.add_argument("--tokens", type=positive, default=32768, metavar="N", help="of the document (default: 32768)")
    parser.add_argument("--memory", type=memory_size, metavar="SIZE", help='"350 MB", "2GiB" or bytes')
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from ..encoder import Encoder

    plan = Encoder(args.model, device="cpu", weights=args.weights, threads=args.threads).plan(args.tokens)
    fits = None if args.memory is None else plan.fits(args.memory)
    if args.json:
        show_json({"model": args.model, **asdict(plan), "peak": plan.peak, "memory": args.memory, "fits": fits})
    else:
        show(str(plan).splitlines())
    if fits is not None and not args.json:
        size = f"{in_mib(args.memory)} MiB"
        most = f"the largest part: {plan.largest.name}, {in_mib(plan.largest.bytes)} MiB"
        show(("", f"fits {size}" if fits else f"DOES NOT FIT {size}; {most}"))
    return 1 if fits is False else 0
