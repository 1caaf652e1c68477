"""The progress bar: on a terminal only, and never with --quiet."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest


def shown(command: list[str]) -> str:
    """What a command writes to a terminal that does not know its size."""
    terminal, end = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    child = subprocess.Popen([sys.executable, "-m", "longspan", *command], env=environment, stderr=end)
    os.close(end)
    parts = []
    with contextlib.suppress(OSError):  # how Linux says that nobody writes any more
        while part := os.read(terminal, 4096):
            parts.append(part)
    os.close(terminal)
    assert child.wait(60) == 0
    return b"".join(parts).decode()


@pytest.mark.parametrize("truncate", [False, True])
def test_bar(tiny: Path, tmp_path: Path, truncate: bool) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": "cat dog"}) + "\n" for _ in range(1200)) + "\n\n")
    command = ["embed", str(path), "--model", str(tiny), "--output", str(tmp_path / "out.npz")]
    command += ["--long-text", "truncate"] if truncate else []
    size = path.stat().st_size / 1000
    output = shown(command)
    rate = r"[\d,]+ documents/s" if truncate else r"[\d,]+ tokens/s"
    assert re.search(rf"100%\|.*\| {size:.1f}k/{size:.1f}kB \[00:\d\d<00:00, {rate}\]", output), output
    assert output.rstrip().splitlines()[-1].startswith(f"longspan: {tmp_path}/out.npz: 1,200 vectors")
    assert shown([*command, "--quiet", "--overwrite"]) == ""
