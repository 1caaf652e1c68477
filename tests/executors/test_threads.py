"""How many threads: the affinity mask, physical cores and both versions of the cgroup's quota; and that one is one."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from longspan import Encoder, slices
from longspan.executors import threads
from longspan.executors.threads import _cgroup_quota, _siblings, default_threads
from longspan.text.tokenizer import Tokenizer


def v2(folder: Path, content: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.max").write_text(content)


def v1(root: Path, quota: int | str, period: int | str = 100_000) -> None:
    v1_group(root / "cpu", quota, period)


def v1_group(folder: Path, quota: int | str, period: int | str = 100_000) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (folder / "cpu.cfs_period_us").write_text(f"{period}\n")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """What /proc/self/cgroup says in a nested group of version 2."""
    file = tmp_path / "self"
    file.write_text("0::/slice/service\n")
    return file


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cgroup"


@pytest.mark.parametrize(
    ("content", "quota"),
    [("max 100000\n", None), ("200000 100000\n", 2.0), ("150000 100000", 1.5), ("5000 10000", 0.5)],
)
def test_version_2(root: Path, own: Path, content: str, quota: float | None) -> None:
    v2(root / "slice" / "service", content)
    assert _cgroup_quota(root, own) == quota


def test_version_2_takes_the_tightest_of_all_ancestors(root: Path, own: Path) -> None:
    v2(root / "slice" / "service", "800000 100000")
    assert _cgroup_quota(root, own) == 8
    v2(root / "slice", "300000 100000")
    assert _cgroup_quota(root, own) == 3
    v2(root, "100000 50000")  # in a container the mounted root has a limit too
    assert _cgroup_quota(root, own) == 2
    v2(root.parent, "1 100")  # outside of the mount: none of ours
    v2(root / "other", "1 100")
    assert _cgroup_quota(root, own) == 2


def test_version_2_in_a_namespace(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "self"
    file.write_text("0::/\n")
    v2(root, "250000 100000")
    assert _cgroup_quota(root, file) == 2.5


@pytest.mark.parametrize(
    ("quota", "period", "expected"),
    [(-1, 100_000, None), (400_000, 100_000, 4.0), (50_000, 100_000, 0.5), (100, 0, None), ("x", 1, None)],
)
def test_version_1(root: Path, tmp_path: Path, quota: int | str, period: int, expected: float | None) -> None:
    v1(root, quota, period)
    own = tmp_path / "self"
    own.write_text("12:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n")
    assert _cgroup_quota(root, own) == expected


def test_version_1_takes_the_tightest_of_all_ancestors(root: Path, tmp_path: Path) -> None:
    own = tmp_path / "self"
    own.write_text("12:cpu,cpuacct:/slice/job\n3:memory:/other\n")
    for folder, quota in (("cpu", 800_000), ("cpu/slice/job", 300_000), ("cpu/other", 100_000), ("memory/other", 100)):
        v1_group(root / folder, quota)
    assert _cgroup_quota(root, own) == 3
    v1_group(root / "cpu" / "slice", 150_000)
    assert _cgroup_quota(root, own) == 1.5


def test_both_versions(root: Path, own: Path) -> None:
    v1(root, 300_000)
    v2(root / "slice", "200000 100000")
    assert _cgroup_quota(root, own) == 2


@pytest.mark.parametrize("content", ["", "garbage", "max", "1 2 3", "1 x"])
def test_no_limit_where_nothing_is_readable(root: Path, own: Path, content: str) -> None:
    assert _cgroup_quota(root, own) is None
    assert _cgroup_quota(root, root / "absent") is None
    v2(root / "slice", content)
    assert _cgroup_quota(root, own) is None


@pytest.mark.parametrize(
    ("cpus", "names", "quota", "expected"),
    [
        ({0, 1, 2, 3}, {}, None, 4),
        ({0, 1, 2, 3}, {0: "0,2", 2: "0,2", 1: "1,3", 3: "1,3"}, None, 2),  # two threads a core
        ({0, 2}, {0: "0,2", 2: "0,2"}, None, 1),
        ({5, 6}, {5: "1,5", 6: "2,6"}, None, 2),  # one thread of each of two cores
        ({0, 1, 2, 3}, {}, 2.0, 2),
        ({0, 1, 2, 3}, {}, 1.5, 2),
        ({0, 1, 2, 3}, {}, 0.2, 1),
        ({0, 1}, {}, 16.0, 2),
    ],
)
def test_default(
    monkeypatch: pytest.MonkeyPatch, cpus: set[int], names: dict[int, str], quota: float | None, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: cpus)
    monkeypatch.setattr(threads, "_siblings", lambda cpu: names.get(cpu, str(cpu)))
    monkeypatch.setattr(threads, "_cgroup_quota", lambda: quota)
    assert default_threads() == expected


def test_a_core_without_a_name_is_its_own() -> None:
    assert _siblings(99_999) == "99999"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity masks")
def test_affinity_of_this_machine() -> None:
    script = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from longspan.executors.threads import default_threads; print(default_threads())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    output = subprocess.check_output([sys.executable, "-c", script], env=environment, text=True)
    assert output.strip() == "1"
    assert 1 <= default_threads() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize("number", [1, 2])
def test_one_thread_does_all_of_it(small: Path, number: int) -> None:
    """By the processor's time that others took: the executor's threads, and the tokenizer's."""
    script = """
import sys, time
from longspan import Encoder
encoder = Encoder(sys.argv[1], device="cpu", threads=int(sys.argv[2]))
texts = [f"text {n} of many" for n in range(5000)]
whole, own = time.process_time(), time.thread_time()
encoder.encode(texts)
encoder.encode_chunks("A longer document. " * 9000, chunk_tokens=(64, 128))
list(encoder.stream(texts))
whole, own = time.process_time() - whole, time.thread_time() - own
print((whole - own) / whole)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment.pop("TOKENIZERS_PARALLELISM", None)  # which would keep the library to one thread
    command = [sys.executable, "-W", "ignore", "-c", script, str(small), str(number)]
    others = float(subprocess.check_output(command, env=environment, text=True))
    assert others < 0.02 if number == 1 else others > 0.1


@pytest.mark.parametrize("number", [1, 2])
def test_one_thread_tokenises_too(small: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """More threads tokenise a slice while the one before is computed; vectors are the same."""
    tokenise, seen = Tokenizer.encode, set[int]()

    def watched(self: Tokenizer, texts: Sequence[str], **options: Any) -> Any:
        seen.add(threading.get_ident())
        return tokenise(self, texts, **options)

    texts = [f"text {n} of many" for n in range(60)]
    encoder = Encoder(small, device="cpu", threads=number)
    whole = encoder.encode(texts)
    monkeypatch.setattr(slices, "_SLICE_TEXTS", 16)
    monkeypatch.setattr(Tokenizer, "encode", watched)
    assert encoder.encode(texts).tobytes() == whole.tobytes()
    assert (seen == {threading.get_ident()}) == (number == 1)
