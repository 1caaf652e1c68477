"""Names the machine a measurement was made on, so that a figure can be read beside another."""

from __future__ import annotations

import multiprocessing
import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from longspan.executors.threads import default_threads

# Instruction sets that decide how fast an encoder runs; the kernel's names.
ISA_FLAGS = (
    *("avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_bf16", "amx_int8", "asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2"),
)
PACKAGES = (
    "longspan",
    "llama-cpp-python",
    "nncf",
    "numpy",
    "tokenizers",
    "torch",
    "transformers",
    "sentence-transformers",
    "onnxruntime",
    "openvino",
)


def describe() -> dict[str, Any]:
    """The machine, the Python and the installed versions, as plain JSON values."""
    model, flags = _cpu()
    return {
        "cpu": model,
        "cores": cores(),
        "isa": [flag for flag in ISA_FLAGS if flag in flags],
        "memory_gib": round(_memory_bytes() / 2**30, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }


def title(description: dict[str, Any]) -> str:
    """One line for a terminal or under a plot."""
    return (
        f"{description['cpu']}, {description['cores']} cores, {description['memory_gib']} GiB, "
        f"Python {description['python']}, load {description['load_average'][0]}"
    )


def cores() -> int:
    """Physical cores that the scheduler and cgroups grant: what Longspan takes by default, and peers are given."""
    return default_threads()


def peak_memory_bytes() -> int:
    """The most memory this process has had resident; VmHWM, as `ru_maxrss` starts at the parent's peak."""
    return _status_bytes(Path("/proc/self/status"), "VmHWM:")


def processor_seconds() -> float:
    """Processor time that this process and its child processes have used, those that run and those that have ended."""
    ended, ticks = os.times(), 0
    for child in multiprocessing.active_children():
        try:
            fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # no /proc, or it has just ended
        ticks += int(fields[11]) + int(fields[12])
    running = ticks / os.sysconf("SC_CLK_TCK")
    return time.process_time() + ended.children_user + ended.children_system + running


class OtherLoad:
    """How many cores other processes kept busy since this was made: above a few percent, figures are rough."""

    def __init__(self) -> None:
        self._start = self._readings()

    @staticmethod
    def _readings() -> tuple[float, float, float]:
        """Wall clock, and the seconds of processor time used by everybody and by this process."""
        try:
            user, nice, system, _, _, irq, soft = map(int, Path("/proc/stat").read_text().split(maxsplit=8)[1:8])
        except (OSError, ValueError):
            return time.perf_counter(), 0.0, 0.0
        everybody = (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")
        return time.perf_counter(), everybody, processor_seconds()

    def cores(self) -> float:
        """The mean over the time since."""
        wall, everybody, own = (now - then for now, then in zip(self._readings(), self._start, strict=True))
        return max(0.0, everybody - own) / wall if wall > 0 else 0.0


def _memory_bytes() -> int:
    return _status_bytes(Path("/proc/meminfo"), "MemTotal:")


def _status_bytes(path: Path, field: str) -> int:
    """A `Name:  123 kB` line of a /proc file in bytes; 0 where there is none."""
    try:
        for line in path.read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _cpu() -> tuple[str, set[str]]:
    """The processor's name and its feature flags."""
    name, flags = platform.processor() or platform.machine(), set[str]()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return name, flags
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = value.strip()
        elif key.strip().lower() in ("flags", "features"):
            flags = set(value.split())
    return name, flags


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
