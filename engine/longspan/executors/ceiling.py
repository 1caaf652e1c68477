"""How much memory a run may take: what a ceiling on the process leaves, and what the machine and cgroups have left."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ..byte_sizes import in_mib
from ..errors import MemoryCeilingError
from ..process_memory import measure
from .cgroups import OWN, ROOT, controller_folders, unified_folders

HEADROOM, HEADROOM_SHARE = 6 << 20, 32
"""Bytes that are left free below a ceiling: so many, and one part in so many of it. The texts that are tokenised
meanwhile (see `slices`), stacks of threads and the rounding to large pages are not counted otherwise."""

AVAILABLE_SHARE = 0.9
"""How much of what is available is taken: others take some meanwhile."""

MEMINFO = Path("/proc/meminfo")
_UNLIMITED = 1 << 60  # version 1 says a number near 2^63 for no limit


class Ceiling:
    """A ceiling on the most memory that this process ever has resident (VmHWM).

    Args:
        memory: the ceiling in bytes.

    Raises:
        MemoryCeilingError: the process has had more already.
    """

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self._files = 0
        self._check("this process has had")

    def _check(self, what: str) -> None:
        now = measure()
        if now.peak > self.memory:
            raise MemoryCeilingError(
                f"memory is {in_mib(self.memory)} MiB, but {what} {in_mib(now.peak)} MiB resident already: "
                "load the encoder in a process of its own, or give more",
                now.peak,
            )

    def start(self) -> None:
        """What becomes resident of files from now on is the model's; raises if loading took more than may be."""
        self._check("loading the model made")
        self._files = measure().files

    def pages_since(self) -> int:
        """Bytes of files that have become resident since."""
        return max(measure().files - self._files, 0)

    def room(self, held: int) -> int:
        """Bytes that may be held in place of those that are now, so that the process stays below the ceiling."""
        return self.memory - self.around(held)

    def around(self, held: int) -> int:
        """What the process needs besides what is held."""
        return max(measure().resident - held, 0) + HEADROOM + self.memory // HEADROOM_SHARE

    def smallest(self, held: int, needed: int) -> int:
        """The lowest ceiling that leaves room for so many bytes in place of what is held."""
        fixed = self.around(held) - self.memory // HEADROOM_SHARE + needed
        return fixed + fixed // (HEADROOM_SHARE - 1) + 1


def available(meminfo: Path = MEMINFO, root: Path = ROOT, own: Path = OWN) -> int | None:
    """Bytes that can still be taken: of the machine's and of every cgroup's; None if nothing tells."""
    limits = [_machine(meminfo)]
    limits += [_left_v2(folder) for folder in unified_folders(root, own)]
    limits += [_left_v1(folder) for folder in controller_folders("memory", root, own)]
    return min((left for left in limits if left is not None), default=None)


def _machine(path: Path) -> int | None:
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB$", path.read_text(), re.M)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _left_v2(folder: Path) -> int | None:
    limits = [limit for name in ("memory.max", "memory.high") for limit in _number(folder / name)]
    used = [*_number(folder / "memory.current")]
    if not limits or not used:
        return None
    return max(min(limits) - used[0] + _reclaimable(folder, ""), 0)


def _left_v1(folder: Path) -> int | None:
    limits = [limit for limit in _number(folder / "memory.limit_in_bytes") if limit < _UNLIMITED]
    used = [*_number(folder / "memory.usage_in_bytes")]
    if not limits or not used:
        return None
    return max(limits[0] - used[0] + _reclaimable(folder, "total_"), 0)


def _number(path: Path) -> Iterator[int]:
    """What a file says, if it is there and says a number."""
    try:
        text = path.read_text().strip()
    except OSError:
        return
    if text.isdecimal():
        yield int(text)


def _reclaimable(folder: Path, prefix: str) -> int:
    """Pages of files that the kernel takes back before it refuses."""
    try:
        text = (folder / "memory.stat").read_text()
    except OSError:
        return 0
    return sum(int(size) for size in re.findall(rf"^{prefix}(?:in)?active_file (\d+)$", text, re.M))
