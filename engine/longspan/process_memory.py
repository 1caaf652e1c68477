"""What the kernel says about this process's memory."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from .errors import InputError

PROC = Path("/proc/self")
_FIELDS = ("VmRSS", "VmHWM", "RssFile")
_MAPPING = re.compile(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+ +(.*)")


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """Resident bytes.

    Attributes:
        resident: now.
        peak: the most so far (VmHWM; `ru_maxrss` would start at the parent's).
        mapped: of `resident`, pages of the files that were asked about.
        files: of `resident`, pages of any files.
    """

    resident: int
    peak: int
    mapped: int
    files: int = 0


def measure(files: Collection[Path] = (), proc: Path = PROC) -> ProcessMemory:
    """This process's memory, and how much of it is pages of mapped files.

    Raises:
        InputError: the kernel does not tell; only Linux does.
    """
    try:
        status = (proc / "status").read_text()
        mappings = (proc / "smaps").read_text(errors="surrogateescape") if files else ""
        values = {name: int(re.search(rf"^{name}:\s+(\d+) kB$", status, re.M)[1]) * 1024 for name in _FIELDS}  # type: ignore[index]
    except (OSError, TypeError) as error:
        raise InputError(f"a plan needs what Linux tells in {proc}: {error}") from error
    return ProcessMemory(values["VmRSS"], values["VmHWM"], _mapped(mappings, files), values["RssFile"])


def _mapped(mappings: str, files: Collection[Path]) -> int:
    names = {str(path.resolve()) for path in files}
    total, counts = 0, False
    for line in mappings.splitlines():
        if line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024 if counts else 0
        elif found := _MAPPING.fullmatch(line):
            counts = found[1] in names
    return total
