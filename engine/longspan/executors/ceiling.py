"""How much memory a run may take: what a ceiling on the process leaves, and what the machine and cgroups have left."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

from ..byte_sizes import MIB, in_mib
from ..errors import MemoryCeilingError
from ..process_memory import measure
from .cgroups import OWN, ROOT, controller_folders, unified_folders

HEADROOM, HEADROOM_SHARE = 6 << 20, 32
"""Bytes that are left free below a ceiling: so many, and one part in so many of it. The texts that are tokenised
meanwhile (see `slices`), stacks of threads and the rounding to large pages are not counted otherwise."""

UNCOUNTED = 1 << 20
"""Bytes that are taken without a look at what is left: the headroom has room for them, and a look takes as long as some
layers of a short text."""

GROWTH = 12 << 20
"""By how much a process grows with its first calls: caches of the tokenizer, stacks of threads, heaps that keep what
was freed. A ceiling that is named has room for it."""

AVAILABLE_SHARE = 0.9
"""How much of what is available is taken: others take some meanwhile."""

MEMINFO = Path("/proc/meminfo")
_UNLIMITED = 1 << 60  # version 1 says a number near 2^63 for no limit


class Turn:
    """A lock of the whole process, which a thread that holds it may take again; a forked child has its own."""

    def __init__(self) -> None:
        self._process, self._lock = os.getpid(), threading.RLock()

    def __enter__(self) -> None:
        if self._process != os.getpid():  # the parent's holder will never leave
            self._process, self._lock = os.getpid(), threading.RLock()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


CALLS, RUNS = Turn(), Turn()
"""What a ceiling leaves is one for the process: nobody else's call, or run, may take what somebody has just measured.
Of both, CALLS is taken first."""


class Ceiling:
    """A ceiling on the most memory that this process ever has resident (VmHWM).

    Args:
        memory: the ceiling in bytes.

    Raises:
        MemoryCeilingError: the process has had more already.
    """

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self.check()

    def check(self) -> None:
        """Raise if the process has had more; then no way to run anything keeps it below."""
        peak = measure().peak
        if peak > self.memory:
            smallest = _with_headroom(peak)
            raise MemoryCeilingError(
                f"memory is {_said(self.memory)}, but this process has had {in_mib(peak)} MiB resident already: "
                f"give memory='{whole_mib(smallest)}MiB' or more, or load the encoder in a process that has had less",
                smallest,
            )

    def room(self, held: int) -> int:
        """Bytes that may be held in place of those that are now, so that the process stays below the ceiling."""
        return self.memory - self._around(held) - HEADROOM - self.memory // HEADROOM_SHARE

    def smallest(self, held: int, needed: int) -> int:
        """A ceiling that leaves room for so many bytes in place of what is held, after some more calls too."""
        return _with_headroom(self._around(held) + needed)

    def require(self, needed: int, what: str) -> None:
        """Raise a MemoryCeilingError, which says what takes them, unless there is room for so many bytes more."""
        if needed > self.room(0):
            smallest = self.smallest(0, needed)
            raise MemoryCeilingError(
                f"memory is {_said(self.memory)}, but {what} {in_mib(needed)} MiB beside what this process has: "
                f"give memory='{whole_mib(smallest)}MiB' or more",
                smallest,
            )

    def _around(self, held: int) -> int:
        """What the process has besides what is held."""
        return max(measure().resident - held, 0)


def whole_mib(size: int) -> int:
    """MiB, rounded up."""
    return -(-size // MIB)


def _with_headroom(size: int) -> int:
    size += HEADROOM + GROWTH
    return -(-(size + size // (HEADROOM_SHARE - 1) + 1) // MIB) * MIB


def _said(memory: int) -> str:
    return f"{in_mib(memory)} MiB" if memory >= MIB else f"{memory:,} bytes"


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
