"""`memory=`: the ceiling is kept, no bit depends on it, and what does not fit is said with what would."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.texts import paragraphs

from longspan import Encoder, InputError, MemoryCeilingError
from longspan.executors import fitting
from longspan.executors.cpu import CpuExecutor
from longspan.executors.streamed import packed_bytes
from longspan.executors.ways import Way

from .processes import output_of

MIB = 1 << 20
TEXTS = ["The weather is lovely today.", "", "So sunny outside! " * 30, "He drove to the stadium. " * 80] * 20

# What a plan says in a fresh process, and what is reached then; or the smallest ceiling that would do.
SCRIPT = """
    import hashlib, json, re, sys
    from pathlib import Path
    from longspan import Encoder, MemoryCeilingError

    folder, weights, memory, source, tokens = sys.argv[1:]
    text = Path(source).read_text(encoding="utf-8")
    try:
        encoder = Encoder(folder, device="cpu", threads=2, weights=weights, memory=memory or None)
        plan = encoder.plan(int(tokens))
        vectors = encoder.encode_chunks(text).vectors
    except MemoryCeilingError as error:
        print(json.dumps({"smallest": error.smallest, "error": str(error)}))
    else:
        peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
        said = {"said": plan.peak, "kept": plan.kept_stages, "stages": plan.stages, "tables": plan.tables_kept}
        print(json.dumps({**said, "peak": peak, "bits": hashlib.sha256(vectors.tobytes()).hexdigest()}))
"""


def in_a_process(folder: Path, weights: str, memory: str, text: Path, tokens: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(output_of(SCRIPT, folder, weights, memory, text, tokens, timeout=300))
    return found


@pytest.fixture(scope="module")
def saved(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "int8"
    Encoder(minilm, device="cpu", weights="int8").save(folder)
    return folder


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 6,000 tokens."""
    path = tmp_path_factory.mktemp("document") / "text"
    path.write_text("\n\n".join(paragraphs()[:60]), encoding="utf-8")
    return path


def test_down_to_the_smallest_ceiling(minilm: Path, saved: Path, document: Path) -> None:
    """From more than enough to the least that the error names: under the ceiling, as predicted, the same bits."""
    tokens = len(Encoder(minilm).tokenizer.encode(document.read_text(), add_special_tokens=False).ids)
    free = in_a_process(saved, "auto", "", document, tokens)
    refused = in_a_process(saved, "auto", "55MiB", document, tokens)
    smallest = refused["smallest"]
    assert "memory is 55.0 MiB, but this process needs" in refused["error"]
    assert f"for a text of 1 tokens: give memory='{smallest // MIB}MiB' or more" in refused["error"]
    assert 60 * MIB < smallest < 90 * MIB
    memory = 1 << 30
    while "bits" in (this := in_a_process(saved, "auto", str(memory), document, tokens)):
        found = this
        assert found["bits"] == free["bits"]
        assert found["peak"] <= memory
        assert found["said"] == pytest.approx(found["peak"], rel=0.15)
        memory = smallest if memory > smallest else memory - 3 * MIB
    assert memory < smallest
    assert found["kept"] < found["stages"] == 6
    assert not found["tables"]


def test_a_checkpoint_without_panels(minilm: Path, document: Path) -> None:
    """Its packed weights go to a temporary file, one instruction at a time: loading keeps below the ceiling too."""
    free = in_a_process(minilm, "float32", "", document, 6000)
    found = in_a_process(minilm, "float32", "95MiB", document, 6000)
    assert found["bits"] == free["bits"]
    assert found["peak"] <= 95 * MIB < free["peak"]
    assert found["kept"] < found["stages"]


@pytest.mark.parametrize("memory", ["-1", "2 parsecs", "", "0", 0, -5, True, 1.5, b"1GB"])
def test_what_is_no_ceiling(small: Path, memory: Any) -> None:
    with pytest.raises(InputError, match=r"memory is .*, expected bytes, or a size such as '350 MB' or '2GiB'"):
        Encoder(small, device="cpu", memory=memory)


def test_less_than_the_process_has(small: Path) -> None:
    with pytest.raises(MemoryCeilingError, match=r"memory is 1.0 MiB, but this process has had [\d,.]+ MiB"):
        Encoder(small, device="cpu", memory="1MiB")


def test_where_nothing_keeps_to_it(small: Path) -> None:
    with pytest.raises(InputError, match="memory= is for the CPU, without a backend"):
        Encoder(small, device="cpu", backend="reference", memory="1TiB")


def test_it_is_pickled(small: Path) -> None:
    copy = pickle.loads(pickle.dumps(Encoder(small, device="cpu", memory="3TiB")))
    assert copy.plan(100).memory == 3 << 40
    assert "memory" not in repr(copy)


@pytest.mark.parametrize(
    ("weights", "hint"),
    [
        (
            "float32",
            "; less is taken by a model folder that `save` wrote, or weights='bfloat16' or 'int8', or a smaller",
        ),
        ("bfloat16", "; less is taken by a model folder that `save` wrote, or weights='int8', or a smaller"),
    ],
)
def test_what_would_take_less(minilm: Path, weights: Any, hint: str) -> None:
    encoder = Encoder(minilm, device="cpu", weights=weights, memory="9TiB")
    ceiling = executor_of(encoder)._fitting.too_low(99 * MIB, 4000)
    assert hint in str(ceiling)
    assert "window" not in str(executor_of(encoder)._fitting.too_low(99 * MIB, 100))


# --- pressure from outside -------------------------------------------------------------------------------------------


def executor_of(encoder: Encoder) -> CpuExecutor:
    executor = encoder._pipeline.executor
    assert isinstance(executor, CpuExecutor)
    return executor


class Ran:
    """Notes the ways in which an executor runs, and refuses memory for arenas above a limit."""

    def __init__(self, executor: CpuExecutor, monkeypatch: pytest.MonkeyPatch, limit: int = 1 << 60) -> None:
        self.ways: list[Way] = []
        self.refused: list[Way] = []
        run_way = executor.run_way

        def noted(batch: Any, way: Way, *rest: Any) -> Any:
            sizes = executor._sizes
            if sizes.arena_bytes(batch.cu_seqlens, way) > limit:
                self.refused.append(way)
                raise MemoryError
            self.ways.append(way)
            return run_way(batch, way, *rest)

        monkeypatch.setattr(executor, "run_way", noted)


@pytest.mark.parametrize("memory", [None, "8TiB"])
def test_others_take_the_memory(saved: Path, monkeypatch: pytest.MonkeyPatch, memory: str | None) -> None:
    """A way that takes less; with nothing left at all, the one that takes least, as what is left is no promise."""
    exact = Encoder(saved, device="cpu", threads=2).encode(TEXTS, show_progress_bar=False)
    monkeypatch.setattr(fitting, "available", lambda: 0)
    encoder = Encoder(saved, device="cpu", threads=2, memory=memory)
    ran = Ran(executor_of(encoder), monkeypatch)
    assert encoder.encode(TEXTS, show_progress_bar=False).tobytes() == exact.tobytes()
    assert Way() not in ran.ways
    assert any(way.staged for way in ran.ways) == (memory is not None)
    monkeypatch.setattr(fitting, "available", lambda: 1 << 40)
    ran.ways.clear()
    assert encoder.encode(TEXTS, show_progress_bar=False).tobytes() == exact.tobytes()
    assert set(ran.ways) == {Way()}


@pytest.mark.parametrize("memory", [None, "8TiB"])
def test_what_is_there_already_is_not_asked_for(
    saved: Path, monkeypatch: pytest.MonkeyPatch, memory: str | None
) -> None:
    """The same batch once more takes nothing, so nobody looks at what is left."""
    encoder = Encoder(saved, device="cpu", threads=2, memory=memory)
    exact = encoder.encode(TEXTS[:4], show_progress_bar=False)

    def asked(*_: object) -> int:
        raise AssertionError("somebody asked")

    monkeypatch.setattr(fitting, "available", asked)
    monkeypatch.setattr("longspan.executors.ceiling.measure", asked)
    assert encoder.encode(TEXTS[:4], show_progress_bar=False).tobytes() == exact.tobytes()
    with pytest.raises(AssertionError, match="somebody asked"):
        encoder.encode(TEXTS, show_progress_bar=False)


def test_the_system_refuses(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half as much is tried, then half of that; what is finished is not done again."""
    exact = Encoder(saved, device="cpu", threads=2).encode(TEXTS, show_progress_bar=False)
    encoder = Encoder(saved, device="cpu", threads=2)
    executor = executor_of(encoder)
    usual = executor._sizes.arena_bytes(np.array([0, 256] * 4).cumsum(), Way())
    ran = Ran(executor, monkeypatch, usual * 3 // 4)
    assert encoder.encode(TEXTS, show_progress_bar=False).tobytes() == exact.tobytes()
    assert ran.refused
    assert ran.ways
    monkeypatch.undo()
    Ran(executor, monkeypatch, 1)
    with pytest.raises(MemoryError, match=r"a text of 2\d\d tokens takes [\d.]+ MiB, which the system refuses"):
        encoder.encode(TEXTS, show_progress_bar=False)
    monkeypatch.undo()
    assert encoder.encode(TEXTS, show_progress_bar=False).tobytes() == exact.tobytes()


def test_a_limit_on_addresses(small: Path) -> None:
    """The real thing: the system refuses an arena, and a smaller one is made."""
    script = """
        import resource, sys
        import numpy as np
        from longspan import Encoder
        from longspan.executors.ways import Way

        encoder = Encoder(sys.argv[1], device="cpu", threads=2)
        encoder.max_seq_length = 512
        encoder.encode("This starts the threads.")
        executor = encoder._pipeline.executor
        run_way, tried = executor.run_way, []

        def run_short_of_memory(batch, way, *rest):
            arena = executor._sizes.arena_bytes(batch.cu_seqlens, way)
            used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
            tried.append(arena)
            limit = used - executor._program.arena_bytes + max(tried) * 3 // 4
            resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
            try:
                return run_way(batch, way, *rest)
            finally:
                resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

        executor.run_way = run_short_of_memory
        shape = encoder.encode(["word " * 500] * 40, show_progress_bar=False).shape
        print(shape, tried[1] < tried[0])
    """
    assert output_of(script, small) == "(40, 32) True\n"


def test_packed_weights_of_the_body(minilm: Path) -> None:
    """What decides whether weights go to a file is what they then take."""
    for weights in ("float32", "bfloat16", "int8"):
        executor = executor_of(Encoder(minilm, device="cpu", weights=weights))
        assert packed_bytes(executor.body, executor.format) == pytest.approx(executor._program.weight_bytes, rel=0.06)
