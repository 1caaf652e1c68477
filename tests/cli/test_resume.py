"""`longspan embed` killed, starved and doubled: whatever happens, the same command ends with the same bytes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

# Runs of the command are forked from here, so that each one starts at once.
PRELUDE = """
    import os, random, resource, signal, sys, time
    from pathlib import Path
    import numpy as np
    from longspan.cli import inputs
    from longspan.cli.main import main
    from longspan.executors import cpu

    if "--memory" in sys.argv:  # as if the weights did not fit: they are read from a file again and again
        cpu.packed_bytes = lambda *_: 1 << 60
    inputs.GROUP_DOCUMENTS = int(sys.argv[1])
    command = sys.argv[2:]
    output = Path(command[command.index("--output") + 1])
    partial = Path(f"{output}.partial")

    def fork(prepare=lambda: None):
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            prepare()
            os._exit(main(command))
        return child

    def wait(child):
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def fresh():
        output.unlink(missing_ok=True)
        assert not partial.exists()

    def finish():  # what is left to do, unless the killed run had nothing left but its empty folder
        done = output.exists() and not list(partial.glob("*.json"))
        assert wait(fork()) == (2 if done and "--overwrite" not in command else 0)
        assert output.read_bytes() == expected
        assert not partial.exists()

    assert wait(fork()) == 0
    expected = output.read_bytes()
"""
# The k-th time that the run touches a file of its own, it is killed instead: k = 0, 1, … until it gets through.
EVERYWHERE = """
    def killer(count):
        def hook(event, arguments):
            nonlocal count
            mine = event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
            if mine and str(arguments[0]).startswith(str(output)):
                count -= 1
                if count < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        return lambda: sys.addaudithook(hook)

    places = 0
    while True:
        fresh()
        code = wait(fork(killer(places)))
        if code == 0:
            break
        assert code == -signal.SIGKILL
        finish()
        places += 1
    assert output.read_bytes() == expected
    print(places)
"""
RANDOM = """
    random.seed(int(os.environ["SEED"]))
    fresh()
    start = time.monotonic()
    assert wait(fork()) == 0
    whole = time.monotonic() - start
    kills = 0
    while kills < 20:
        fresh()
        while True:  # several times in a row, as it comes
            child = fork()
            time.sleep(random.uniform(0, whole))
            os.kill(child, signal.SIGKILL)
            if wait(child) != -signal.SIGKILL:
                break
            kills += 1
            if random.random() < 0.3 or output.exists():
                break
        finish() if partial.exists() else None
        assert not output.exists() or output.read_bytes() == expected
    print(kills)
"""
FULL_DISK = """
    # No file may grow beyond the limit: what does not fit is the output, the last shard, any shard, the manifest.
    for limit in (len(expected) - 10, 4000, 1000, 100):
        fresh()
        assert wait(fork(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY)))) == 2
        assert not output.exists()
        assert not list(partial.glob("*.tmp"))
        assert partial.exists() == (limit > 1000)
        assert wait(fork()) == 0
        assert output.read_bytes() == expected
    print("continued")
"""
TWICE = """
    fresh()
    release, hold = os.pipe()
    from longspan.cli import groups
    embed = groups.embed_group

    def slowly(*arguments):
        os.close(hold)
        os.read(release, 1)  # until the parent closes its end
        groups.embed_group = embed
        return embed(*arguments)

    def prepare():
        groups.embed_group = slowly

    first = fork(prepare)
    while not (partial / "manifest.json").exists():
        time.sleep(0.01)
    assert wait(fork()) == 2
    assert partial.exists()
    os.close(hold)
    assert wait(first) == 0
    assert output.read_bytes() == expected
    print("one at a time")
"""


def run(script: str, group: int, *command: object, seed: int = 0) -> tuple[str, str]:
    """What a script prints, and its errors."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "SEED": str(seed)}
    source = textwrap.dedent(PRELUDE) + textwrap.dedent(script)
    arguments = [sys.executable, "-c", source, str(group), *map(str, command)]
    child = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=120)
    assert child.returncode == 0, child.stderr
    return child.stdout, child.stderr


def corpus(path: Path, count: int) -> Path:
    texts = ["cat dog. " * (i % 7) + "fish bird. a b c d e f." for i in range(count)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    "more", [(), ("--overwrite", "--chunk-tokens", "4,9", "--precision", "int8"), ("--memory", "4GiB")]
)
def test_killed_at_every_file(tiny: Path, tmp_path: Path, more: tuple[str, ...]) -> None:
    path = corpus(tmp_path / "corpus.jsonl", 5)
    out, _ = run(EVERYWHERE, 3, "embed", path, "--model", tiny, "--output", tmp_path / "out.npz", "--quiet", *more)
    assert int(out) > 20


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out.npz", "out.jsonl"])
def test_killed_at_random_moments(tiny: Path, tmp_path: Path, name: str) -> None:
    path = corpus(tmp_path / "corpus.jsonl", 400)
    command = ("embed", path, "--model", tiny, "--output", tmp_path / name, "--quiet", "--chunk-tokens", 8)
    out, _ = run(RANDOM, 40, *command, "--threads", 1)
    assert int(out) >= 20


@pytest.mark.slow
def test_killed_with_parquet(tiny: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow.parquet")
    path = corpus(tmp_path / "corpus.jsonl", 5)
    out, _ = run(EVERYWHERE, 3, "embed", path, "--model", tiny, "--output", tmp_path / "out.parquet", "--quiet")
    assert int(out) > 20


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out.npz", "out.jsonl"])
def test_full_disk(tiny: Path, tmp_path: Path, name: str) -> None:
    path = corpus(tmp_path / "corpus.jsonl", 20)
    with path.open("a") as file:
        file.write(json.dumps({"text": "cat. " * 300}))
    command = ("embed", path, "--model", tiny, "--output", tmp_path / name, "--quiet", "--chunk-tokens", 4)
    out, errors = run(FULL_DISK, 2, *command)
    assert out == "continued\n"
    lines = errors.splitlines()
    failed = [line for line in lines if line.startswith("longspan: error: ")]
    assert len(failed) == 4
    assert all(f"/{name}.partial/" in line and line.endswith(".tmp: File too large") for line in failed)
    assert sum(line.endswith(f"{name}.partial; repeat the command to continue") for line in lines) == 2


@pytest.mark.slow
def test_two_runs_at_once(tiny: Path, tmp_path: Path) -> None:
    path = corpus(tmp_path / "corpus.jsonl", 4)
    out, errors = run(TWICE, 3, "embed", path, "--model", tiny, "--output", tmp_path / "out.npz", "--quiet")
    assert out == "one at a time\n"
    assert errors == f"longspan: error: another process is writing {tmp_path / 'out.npz'}\n"


def test_bytes_do_not_depend_on_the_clock(tiny: Path, tmp_path: Path) -> None:
    """Nor on the time zone, the place or the hash seed."""
    path = corpus(tmp_path / "corpus.jsonl", 5)
    written = []
    for seed, zone in (("1", "UTC-9"), ("2", "UTC+5")):
        output = tmp_path / f"{seed}.npz"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        environment |= {"PYTHONHASHSEED": seed, "TZ": zone}
        command = [sys.executable, "-m", "longspan", "embed", str(path), "--model", str(tiny), "--output", str(output)]
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)
        written.append(output.read_bytes())
        with contextlib.suppress(OSError):
            os.utime(path)
    assert written[0] == written[1]
