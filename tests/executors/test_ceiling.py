"""What a ceiling leaves, and what the machine and its cgroups have left."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from longspan import MemoryCeilingError
from longspan.executors.ceiling import GROWTH, Ceiling, Turn, available
from longspan.process_memory import measure

MIB = 1 << 20


@pytest.fixture
def machine(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A machine with 800 MiB left: what /proc/meminfo, the mounted cgroups and /proc/self/cgroup say."""
    meminfo, own = tmp_path / "meminfo", tmp_path / "own"
    meminfo.write_text(f"MemTotal:  9999999 kB\nMemAvailable:   {800 * 1024} kB\n")
    own.write_text("4:memory:/box\n3:cpu,cpuacct:/\n0::/slice/service\n")
    return meminfo, tmp_path / "cgroup", own


def group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


def test_the_machine(machine: tuple[Path, Path, Path]) -> None:
    assert available(*machine) == 800 * MIB


def test_nothing_tells(tmp_path: Path) -> None:
    assert available(tmp_path / "a", tmp_path / "b", tmp_path / "c") is None
    (tmp_path / "a").write_text("Nothing: of use\n")
    assert available(tmp_path / "a", tmp_path / "b", tmp_path / "c") is None


def test_version_2(machine: tuple[Path, Path, Path]) -> None:
    """The tightest of all ancestors, whose file pages can be taken back."""
    root = machine[1]
    group(root / "slice" / "service", memory__max="max", memory__current=500 * MIB)
    assert available(*machine) == 800 * MIB
    group(root / "slice", memory__max=600 * MIB, memory__high="max", memory__current=500 * MIB)
    assert available(*machine) == 100 * MIB
    stat = f"anon 7\nactive_file {20 * MIB}\ninactive_file {30 * MIB}\nactive_anon 9"
    group(root / "slice", memory__stat=stat)
    assert available(*machine) == 150 * MIB
    group(root / "slice", memory__high=540 * MIB)
    assert available(*machine) == 90 * MIB
    group(root / "slice" / "service", memory__max=MIB, memory__current=5 * MIB)
    assert available(*machine) == 0


def test_version_1(machine: tuple[Path, Path, Path]) -> None:
    folder = machine[1] / "memory" / "box"
    group(folder, memory__limit_in_bytes=(1 << 63) - 4096, memory__usage_in_bytes=MIB)
    assert available(*machine) == 800 * MIB
    group(folder, memory__limit_in_bytes=70 * MIB, memory__usage_in_bytes=60 * MIB)
    assert available(*machine) == 10 * MIB
    group(folder, memory__stat=f"total_inactive_file {MIB}\ninactive_file 1")
    assert available(*machine) == 11 * MIB
    group(folder.parent, memory__limit_in_bytes=9 * MIB, memory__usage_in_bytes=4 * MIB)
    assert available(*machine) == 5 * MIB


def test_a_ceiling_that_was_passed_already() -> None:
    with pytest.raises(
        MemoryCeilingError, match=r"memory is 5\.0 MiB, but this process has had .* MiB resident"
    ) as caught:
        Ceiling(5 * MIB)
    assert caught.value.smallest >= 5 * MIB


def test_what_it_leaves() -> None:
    memory = measure().peak + (1 << 30)
    ceiling = Ceiling(memory)
    room = ceiling.room(0)
    assert memory - measure().peak - 100 * MIB < room + memory // 32 < memory
    assert ceiling.room(50 * MIB) == pytest.approx(room + 50 * MIB, abs=5 * MIB)
    needed = 3 << 30
    smallest = Ceiling(ceiling.smallest(0, needed))
    assert 0 <= smallest.room(0) - needed - GROWTH + 5 * MIB < 10 * MIB
    with pytest.raises(MemoryCeilingError, match=r"but a thing takes 9,216\.0 MiB beside .*: give memory=.\d+MiB"):
        ceiling.require(9 << 30, "a thing takes")
    ceiling.require(1, "a thing takes")


def test_a_turn_is_its_threads_own() -> None:
    turn, order = Turn(), []

    def other() -> None:
        with turn:
            order.append("other")

    thread = threading.Thread(target=other)
    with turn, turn:  # as a signal handler's call is inside the one that it interrupts
        thread.start()
        thread.join(0.05)
        order.append("own")
    thread.join()
    assert order == ["own", "other"]


def test_a_turn_in_a_forked_child() -> None:
    turn, started, leave = Turn(), threading.Event(), threading.Event()

    def hold() -> None:
        with turn:
            started.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    started.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        status = 3
        try:
            with turn:
                status = 7
        finally:
            os._exit(status)
    leave.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
