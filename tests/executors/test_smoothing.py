"""int8 weights are packed stage by stage: samples go along, and what they bring to a stage decides its smoothing."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from benchmarks.tiny import bert_shapes
from safetensors.numpy import save_file

from longspan import Encoder, _csrc
from longspan.batch import Float32, PackedBatch
from longspan.checkpoint.tensor_view import TensorView
from longspan.executors import binding, stages
from longspan.executors.cpu import CpuExecutor
from longspan.executors.runner import BodyRunner
from longspan.executors.smoothing import SampleWalk
from longspan.executors.ways import Way
from longspan.program.formats import in_format, matrices_of
from longspan.program.instructions import Moe, Pool, Routing
from longspan.program.operands import Buffer, Rows
from longspan.program.program import Program

from ..ops.harness import Case, batch_of, every_tier, pooled_by_row

LAYERS = 3


@pytest.fixture(scope="module")
def source(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of some layers."""
    folder = tmp_path_factory.mktemp("source")
    config = json.loads((small / "config.json").read_text()) | {"num_hidden_layers": LAYERS}
    for path in small.iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            (folder / path.name).symlink_to(path)
    (folder / "config.json").write_text(json.dumps(config))
    random = np.random.default_rng(5)
    tensors = {name: random.normal(0, 0.2, shape).astype(np.float32) for name, shape in bert_shapes(config).items()}
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def executor(source: Path) -> CpuExecutor:
    return executor_of(Encoder(source, device="cpu", weights="int8", threads=2))


def executor_of(encoder: Encoder) -> CpuExecutor:
    executor = encoder._pipeline.executor
    assert isinstance(executor, CpuExecutor)
    return executor


def samples_of(executor: CpuExecutor) -> PackedBatch:
    assert executor._samples is not None
    return executor._samples()


def arrays_of(executor: CpuExecutor) -> Iterator[bytes]:
    """All of the weights."""
    for _, matrices in executor.panels():
        for parts in matrices:
            yield from bits(parts)


def bits(parts: Sequence[npt.NDArray[Any] | None]) -> list[bytes]:
    return [b"" if part is None else part.tobytes() for part in parts]


def smooth_for(reach: Float32, panels: Any, k: int) -> Float32:
    """sqrt(reach of the weight's column / reach of the input's), by the weight as it was rounded: [k]."""
    codes, scales, _, smooth = panels
    terms = codes.shape[1] * codes.shape[3]
    values = codes.transpose(0, 2, 1, 3).reshape(-1, terms)[:, :k] * scales[:, None] * smooth[:k]
    most = np.maximum(reach, reach.mean() / 4)
    return np.asarray(np.sqrt(np.abs(values).max(0) / most), np.float32)


def test_stages_are_smoothed_by_what_comes_to_them(executor: CpuExecutor) -> None:
    """What reaches the first product of a layer is what the layers before it send in the end, smoothed as they are."""
    program = executor._program
    program.watch()
    executor.run_way(samples_of(executor), Way(schedule="packs"))
    checked = 0
    for index, (step, seen) in enumerate(zip(executor.body.instructions, program.watched(), strict=True)):
        for field, weight in matrices_of(step):
            ((*_, smooth),) = found = program.panels_of(index)[field]
            k = weight.shape[1]
            (reach,) = seen[field]
            assert smooth is not None
            # Weights are known to half a code here, and within a stage smoothing moves what comes next by its rounding.
            np.testing.assert_allclose(smooth[:k], smooth_for(reach, found[0], k), rtol=0.1)
            assert np.ptp(smooth[:k]) > 0
            checked += 1
    assert checked == 4 * LAYERS


def test_what_is_seen_is_what_runs(source: Path, executor: CpuExecutor) -> None:
    """To the bit: samples stand before each stage where a run of the finished body brings them."""
    body = executor.body
    finished = executor._program
    finished.watch()
    executor.run_way(samples_of(executor), Way(schedule="packs"))
    first = {step.stage: number for number, step in reversed(list(enumerate(body.instructions)))}
    seen: list[Sequence[Mapping[str, Float32]]] = []

    def watch(*arguments: Any, **more: Any) -> Sequence[Mapping[str, Float32]]:
        seen.append(plain(*arguments, **more))
        return seen[-1]

    plain = SampleWalk.watch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SampleWalk, "watch", watch)
        again = executor_of(Encoder(source, device="cpu", weights="int8", threads=1))
    assert len(seen) == LAYERS
    for stage, inputs in enumerate(seen, 1):
        assert body.instructions[first[stage]].op == "qkv"
        expected = finished.watched()[first[stage]]["weight"]
        assert inputs[0]["weight"].tobytes() == expected.tobytes()
    assert [*arrays_of(again)] == [*arrays_of(executor)]


def test_samples_pool_to_what_a_run_gives(executor: CpuExecutor) -> None:
    """So that attention over bytes is compared with it, without another run."""
    assert executor._sampled is not None
    runs = executor.run_way(samples_of(executor), Way())
    assert [array.tobytes() for array in executor._sampled] == [array.tobytes() for array in runs]


class Read(dict[str, TensorView]):
    """Tensors, and the names of those that were looked at, in order."""

    def __init__(self, tensors: dict[str, TensorView]) -> None:
        super().__init__(tensors)
        self.names: list[str] = []

    def __getitem__(self, name: str) -> TensorView:
        self.names.append(name)
        return super().__getitem__(name)


def chain(case: Case) -> Program:
    """Stages of one `moe` each, from x to x; then a pool."""
    x, out = case.rows("x", 24), Buffer("out", Rows.PARTIALS, 24)
    ops = [moe(case, x, experts=3, prefix=f"{stage}.", stage=stage) for stage in range(1, LAYERS + 1)]
    pool = Pool(stage=LAYERS + 1, x=x, out=out, kind="sum", index=0)
    return Program("chain", (*case.program(outputs=[x]).instructions, *ops, pool), outputs=(out,))


def moe(case: Case, x: Buffer, experts: int, prefix: str = "", stage: int = 1, chosen: int = 2) -> Moe:
    def tile(name: str, width: int) -> Buffer:
        return Buffer(name, Rows.TILE, width)

    inner = 40
    return Moe(
        stage=stage,
        x=x,
        out=x,
        logits=tile("logits", experts),
        gathered=tile("gathered", 24),
        hidden=tile("hidden", inner),
        sums=tile("sums", 24),
        router=case.weight(f"{prefix}router", experts, 24),
        routing=Routing(experts=experts, chosen=chosen, normalised=True),
        up=case.stacked(f"{prefix}up", *[(inner, 24)] * experts),
        gate=case.stacked(f"{prefix}gate", *[(inner, 24)] * experts),
        down=case.weight(f"{prefix}down", experts * 24, inner),
        activation="silu",
    )


@pytest.mark.parametrize("away", [False, True])
def test_one_stage_at_a_time(away: bool) -> None:
    """No two stages are there at once, beside those that are done, and weights are read in order."""
    case = Case(4)
    body = in_format(chain(case), "int8")
    tensors = Read(case.tensors)
    made: list[weakref.ref[_csrc.Program]] = []

    def empty(*arguments: Any) -> _csrc.Program:
        there = [program for reference in made if (program := reference()) is not None]
        assert all(program.weight_bytes == 0 for program in there)
        made.append(weakref.ref(program := make(*arguments)))
        return program

    make, walk = binding.empty, SampleWalk(BodyRunner(body, case.tensors), batch_of([50, 20]), Way(), threads=2)
    packed = stages.packed_stages(body, tensors, "generic", walk, tables_mapped=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "empty", empty)
        if away:
            file, stored = stages.packed_away(packed)
            file.close()
            assert len(stored) == 3 * LAYERS
        else:
            program = make(body, "generic")
            for stage in packed:
                program.take(stage.program)
            assert program.weight_bytes > 0
    assert len(made) == 2 * LAYERS + 2
    layers = [int(name[0]) for name in tensors.names if name[0].isdigit()]
    assert layers == sorted(layers)
    assert set(layers) == set(range(1, LAYERS + 1))


# --- experts ---------------------------------------------------------------------------------------------------------


@every_tier
@pytest.mark.parametrize("threads", [1, 3])
def test_experts_are_smoothed_by_the_rows_that_choose_them(isa: str, threads: int) -> None:
    """Those that no row chose have the bits of a body that nobody showed samples."""
    case, experts = Case(6), 7
    rows = case.normal(700, 24)
    rows[:, 3] *= 20
    rows[:, 0] = 1
    x = case.rows("x", 24, values=rows)
    step = moe(case, x, experts)
    router = np.array(case.tensors["router"].data)
    router[[2, 5], 0] = -500  # which nobody chooses
    step = replace(step, router=case.known("router", router))
    program, samples = pooled_by_row(case.program(step, outputs=[x]), batch_of([30, 5, 12, 1]))
    logits = rows[: samples.tokens] @ router.T
    chosen = np.argsort(-logits, axis=1)[:, :2]
    reached = {int(expert) for expert in chosen.ravel()}
    assert reached == {0, 1, 3, 4, 6}
    known, plain = (
        CpuExecutor(program, case.tensors, threads=threads, isa=isa, weights="int8", samples=shown)
        for shown in (lambda: samples, None)
    )
    number = next(i for i, one in enumerate(program.instructions) if isinstance(one, Moe))
    with_, without = (executor._program.panels_of(number) for executor in (known, plain))
    for field in ("up", "gate", "down"):
        for expert in range(experts):
            *parts, smooth = with_[field][expert]
            *unsmoothed, none = without[field][expert]
            assert none is None
            assert smooth is not None
            k = {"down": 40}.get(field, 24)
            if expert not in reached:
                assert (smooth[:k] == 1).all()
                assert bits(parts) == bits(unsmoothed)
                continue
            assert np.ptp(smooth[:k]) > 0
            if field != "down":
                mine = rows[: samples.tokens][(chosen == expert).any(1)]
                np.testing.assert_allclose(
                    smooth[:k], smooth_for(np.abs(mine).max(0), with_[field][expert], k), rtol=0.1
                )
