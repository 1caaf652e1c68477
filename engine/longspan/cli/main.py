"""The command line's entry: parses, runs one command, and turns errors into one line and an exit code.

Heavy modules are imported inside the commands, so that `--help` is quick.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn, TextIO

from .. import __version__
from ..errors import LongspanError
from . import embed, info, plan, search, verify
from .terminal import note

COMMANDS = (embed, search, info, verify, plan)
MENDABLE, INTERRUPTED, BROKEN_PIPE = 2, 130, 141


class UsageError(Exception):
    """The arguments cannot be parsed."""


class Parser(argparse.ArgumentParser):
    """A parser that complains in one line, and leaves the exit to `main`."""

    def error(self, message: str) -> NoReturn:
        """Called by argparse."""
        raise UsageError(f"{message} (see {self.prog} --help)")


def build_parser() -> Parser:
    """The parser of all commands; each sets `run`."""
    parser = Parser(
        prog="longspan",
        description="Embeds texts of any length, and searches them.",
        epilog="example:\n  longspan search report.txt 'Who signed it?' --model sentence-transformers/all-MiniLM-L6-v2",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"longspan {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line.

    Returns:
        0; 1 where `verify` finds a difference or a plan does not fit; 2 for an error that the user can mend; 130 after
        Ctrl-C; 141 where the reader of the output went away.
    """
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            code = _run(arguments)
            if sys.stdout is not None:  # closed by the caller
                sys.stdout.flush()
        except BrokenPipeError:
            # What is left in the buffer must not be written when the interpreter ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return BROKEN_PIPE
        except KeyboardInterrupt:
            return _complain("interrupted", INTERRUPTED)
        except (UsageError, LongspanError) as error:
            return _complain(str(error), MENDABLE)
        except MemoryError as error:
            return _complain(f"out of memory: {error}".removesuffix(": "), MENDABLE)
        except OSError as error:
            named = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
            return _complain(named + (error.strerror or str(error)), MENDABLE)
    return code


def _run(arguments: Sequence[str] | None) -> int:
    try:
        options = build_parser().parse_args(arguments)
    except SystemExit as end:  # --help and --version
        return int(end.code or 0)
    code: int = options.run(options)
    return code


def _complain(message: str, code: int) -> int:
    note(f"error: {message}")
    return code


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    note(f"warning: {message}")
