"""How many threads to use: what the scheduler and the cgroup grant, one per physical core."""

from __future__ import annotations

import math
import os
from pathlib import Path

from .cgroups import OWN, ROOT, controller_folders, unified_folders


def default_threads() -> int:
    """Physical cores in this process's affinity mask, no more than the cgroup's CPU quota, at least one."""
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = {_siblings(cpu) for cpu in cpus}
    quota = _cgroup_quota()
    return max(1, min(len(cores), math.ceil(quota) if quota else len(cores)))


def _siblings(cpu: int) -> str:
    """A name of the physical core; two hardware threads of one core share its units and give no more arithmetic."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _cgroup_quota(root: Path = ROOT, own: Path = OWN) -> float | None:
    """The CPUs that the cgroup grants (version 2, then version 1), or None without a limit."""
    quotas = [_quota_v2(folder) for folder in unified_folders(root, own)]
    quotas += [_quota_v1(folder) for folder in controller_folders("cpu", root, own)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota_v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
        return quota / period if quota > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
