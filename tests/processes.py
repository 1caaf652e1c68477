"""Scripts in fresh processes, whose memory, signals and imports are their own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap


def output_of(script: str, *arguments: object, timeout: float = 120) -> str:
    """What a script prints, which must not fail. It finds the packages of this process, and shows no warnings."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script), *map(str, arguments)]
    child = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)
    assert child.returncode == 0, child.stderr
    return child.stdout
