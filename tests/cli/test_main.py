"""The entry: help, exit codes, and what is imported for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import longspan as package

Run = Callable[..., Any]
COMMANDS = ("embed", "search", "info", "verify", "plan")


def script(source: str, *arguments: object) -> subprocess.Popen[str]:
    """A script in a fresh interpreter, which finds the packages that this one finds."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", textwrap.dedent(source), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_help(longspan: Run) -> None:
    ran = longspan("--help")
    assert ran.code == 0
    assert all(command in ran.out for command in COMMANDS)
    for command in COMMANDS:
        ran = longspan(command, "--help")
        assert ran.code == 0
        assert f"  longspan {command} " in ran.out.partition("example")[2]


def test_version(longspan: Run) -> None:
    assert longspan("--version").out == f"longspan {package.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "the following arguments are required: COMMAND"),
        (("embed",), "required: INPUT, --output, --model"),
        (("embed", "a.txt", "--model", "m", "--output", "o.npz", "--precision", "int3"), "invalid choice: 'int3'"),
        (("embed", "a.txt", "--model", "m", "--output", "o.npz", "--chunk-tokens", "8,0"), "'0' is no integer"),
        (("embed", "a.txt", "--model", "m", "--output", "o.npz", "--chunk-tokens", "8,8"), "has a size twice"),
        (("search", "a.txt", "q", "--model", "m", "--top", "x"), "'x' is no integer of at least 1"),
        (("info",), "required: MODEL"),
        (("info", "./absent"), "absent does not exist"),
        (("serve", "m"), "invalid choice: 'serve'"),
    ],
)
def test_bad_arguments(longspan: Run, arguments: tuple[str, ...], message: str) -> None:
    ran = longspan(*arguments)
    assert message in ran.error
    assert len(ran.err.splitlines()) == 1


def test_the_parser_needs_nothing_heavy() -> None:
    """The package's own import is left out here, since it is no business of the command line's."""
    child = script(
        """
        import importlib.machinery, sys, types

        package = types.ModuleType("longspan")
        package.__path__, package.__version__ = [sys.argv[1]], "0"
        sys.modules["longspan"] = package
        from longspan.cli.main import build_parser

        build_parser()
        print([name for name in ("numpy", "tokenizers", "safetensors", "tqdm", "torch") if name in sys.modules])
        """,
        Path(package.__file__ or "").parent,
    )
    output, errors = child.communicate(timeout=60)
    assert output == "[]\n", errors


def test_module_and_broken_pipe(without_reader: Callable[..., None], tiny: Path) -> None:
    """`python -m longspan … | head -1` ends without a traceback."""
    without_reader("info", tiny, "--program")


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_closed_standard_output(tiny: Path, more: tuple[str, ...]) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "longspan", "info", str(tiny), *more]
    run = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *command], env=environment, stderr=subprocess.PIPE, timeout=60
    )
    assert (run.returncode, run.stderr) == (0, b"")


@pytest.mark.slow
def test_interrupt(tiny: Path, tmp_path: Path) -> None:
    """Ctrl-C gives one line and the exit code 130, and says how to go on."""
    (tmp_path / "in.txt").write_text("cat dog. " * 500_000)
    source = """
        import signal, sys
        from longspan.cli import groups
        from longspan.cli.main import main

        signal.signal(signal.SIGINT, signal.default_int_handler)
        embed_group = groups.embed_group
        groups.embed_group = lambda *arguments: (print("begin", flush=True), embed_group(*arguments))[1]
        sys.exit(main(sys.argv[1:]))
    """
    small = tmp_path / "a.txt"
    small.write_text("bird")
    child = script(source, "embed", small, tmp_path / "in.txt", "--model", tiny, "--output", tmp_path / "out.npz")
    assert child.stdout is not None
    assert [child.stdout.readline() for _ in range(2)] == ["begin\n"] * 2
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 130, errors
    first, last = errors.splitlines()
    assert first.endswith("out.npz.partial; repeat the command to continue")
    assert last == "longspan: error: interrupted"
