"""Commands, argument types and options that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from ..byte_sizes import parse_size
from ..errors import InputError
from ..weights import WEIGHTS
from .skipped import MOST_NAMED
from .sources import BY_NAME, KINDS


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], text: str, description: str, example: str
) -> argparse.ArgumentParser:
    """Add a command to argparse's subparsers: its name, what runs it, a short text, a long one and an example."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=description,
        epilog=example,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def positive(text: str) -> int:
    """An integer of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no integer of at least 1")
    return value


def sizes(text: str) -> list[int]:
    """ "128" or "128,512", each once."""
    values = [positive(part) for part in text.split(",")]
    if len(set(values)) < len(values):
        raise argparse.ArgumentTypeError(f"{text!r} has a size twice")
    return values


def memory_size(text: str) -> int:
    """Bytes, of "350 MB", "2GiB" or a plain number of them."""
    try:
        return parse_size(int(text) if text.isdecimal() else text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_model(parser: argparse.ArgumentParser, *, option: bool = True) -> None:
    """--model or MODEL, --weights and --threads."""
    text = "a model folder, or a Hugging Face hub id"
    if option:
        parser.add_argument("--model", required=True, metavar="MODEL", help=text)
    else:
        parser.add_argument("model", metavar="MODEL", help=text)
    parser.add_argument(
        "--weights",
        choices=WEIGHTS,
        default="auto",
        help="format of the model's matrices and of what is multiplied with them (default: auto, the folder's own)",
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: one per physical core)")


def add_memory(parser: argparse.ArgumentParser) -> None:
    """--memory."""
    parser.add_argument(
        "--memory",
        type=memory_size,
        metavar="SIZE",
        help='a ceiling on what the process ever has in memory, such as "350 MB" or "2GiB": what does not fit of the '
        "weights is read from the disk layer by layer, and no vector changes",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """--json."""
    parser.add_argument("--json", action="store_true", help="print one JSON document on standard output")


def add_records(parser: argparse.ArgumentParser) -> None:
    """How inputs are read: --input-format, --text-field, --id-field and --skip-errors."""
    parser.add_argument(
        "--input-format",
        choices=(BY_NAME, *dict.fromkeys(KINDS.values())),
        default=BY_NAME,
        help="of the files given by name and of standard input; jsonl is an object per line, as of jq -c. Files inside "
        "folders go by their suffixes in any case (default: auto, by the suffix; standard input is text)",
    )
    parser.add_argument(
        "--text-field",
        default="text",
        metavar="NAME",
        help="where JSONL and CSV have their texts (default: text)",
    )
    parser.add_argument("--id-field", metavar="NAME", help="where they have ids (default: FILE:LINE is a record's id)")
    parser.add_argument(
        "--skip-errors",
        action="store_true",
        help=f"pass over broken records; at the end the first {MOST_NAMED} are named, and the others counted",
    )
