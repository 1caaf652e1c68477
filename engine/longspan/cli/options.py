"""Argument types and options that several commands share."""

from __future__ import annotations

import argparse


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


def add_model(parser: argparse.ArgumentParser) -> None:
    """--model and --threads."""
    parser.add_argument("--model", required=True, metavar="MODEL", help="a model folder, or a Hugging Face hub id")
    add_threads(parser)


def add_threads(parser: argparse.ArgumentParser) -> None:
    """--threads."""
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: one per physical core)")


def add_fields(parser: argparse.ArgumentParser) -> None:
    """--text-field and --id-field."""
    parser.add_argument(
        "--text-field",
        default="text",
        metavar="NAME",
        help="where JSONL and CSV have their texts (default: text)",
    )
    parser.add_argument("--id-field", metavar="NAME", help="where they have ids (default: FILE:LINE is a record's id)")
    parser.add_argument(
        "--skip-errors", action="store_true", help="pass over broken records, and tell at the end how many there were"
    )
