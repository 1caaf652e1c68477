"""Calls of all kinds below a ceiling, each in a fresh process: its peak stays below, or an error says what fits."""

from __future__ import annotations

import json
import shutil
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.texts import paragraphs
from safetensors.numpy import save_file

from longspan import Encoder

from .processes import output_of

MIB = 1 << 20

PRELUDE = """
    import hashlib, json, os, re, signal, sys, threading, time, warnings
    from pathlib import Path
    import numpy as np
    from longspan import CheckpointError, Encoder, MemoryCeilingError
    from longspan.process_memory import measure

    folder, memory, source = sys.argv[1:]
    text = Path(source).read_text(encoding="utf-8")
    texts = text.split("\\n\\n")
    encoder, weights = None, "auto"

    def at_once(calls):
        found = [None] * len(calls)

        def one(number):
            try:
                found[number] = calls[number]()
            except Exception as error:
                found[number] = error

        threads = [threading.Thread(target=one, args=(number,)) for number in range(len(calls))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for result in found:
            if isinstance(result, Exception):
                raise result
        return found

    def run(work):
        global encoder
        found = {}
        try:
            encoder = Encoder(folder, device="cpu", threads=2, memory=memory or None, weights=weights)
            found["bits"] = hashlib.sha256(np.asarray(work()).tobytes()).hexdigest()
        except MemoryCeilingError as error:
            found.update(smallest=error.smallest, error=str(error))
        except CheckpointError as error:
            found["error"] = str(error)
        print(json.dumps({**found, "peak": measure().peak}))
"""


def below(folder: Path, memory: str, source: Path, work: str) -> dict[str, Any]:
    """What came of some work in a fresh process."""
    script = textwrap.dedent(PRELUDE) + textwrap.dedent(work)
    found: dict[str, Any] = json.loads(output_of(script, folder, memory, source))
    return found


@pytest.fixture(scope="module")
def saved(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "int8"
    Encoder(minilm, device="cpu", weights="int8").save(folder)
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "text"
    path.write_text("\n\n".join(paragraphs()[:200]), encoding="utf-8")
    return path


WORKS = {
    "texts": "run(lambda: encoder.encode(texts))",
    "many short texts": "run(lambda: encoder.encode(['two words'] * 6000))",
    "tokens": "run(lambda: np.concatenate(encoder.encode(texts[:50], output_value='token_embeddings')))",
    "chunks": "run(lambda: encoder.encode_chunks(text * 4).vectors)",
    "a stream of chunks": "run(lambda: [one.vector for one in encoder.stream([text * 4], chunk_tokens=64)])",
    "several threads": "run(lambda: at_once([lambda: encoder.encode(texts)] * 4))",
    "two encoders": """
        def work():
            other = Encoder(folder, device="cpu", threads=2, memory=memory or None)
            return at_once([lambda: encoder.encode(texts), lambda: other.encode(texts)])
        run(work)
    """,
}


def climb(folder: Path, source: Path, work: str) -> None:
    """From a ceiling that is too low to one that is named, as often as another one is."""
    free = below(folder, "", source, work)
    memory = 72 * MIB
    for _ in range(4):
        found = below(folder, str(memory), source, work)
        assert found["peak"] <= memory
        if "bits" in found:
            break
        assert f"give memory='{found['smallest'] // MIB}MiB' or more" in found["error"]
        memory = found["smallest"]
    assert found.get("bits") == free["bits"]
    assert memory < free["peak"] + 40 * MIB


@pytest.mark.slow
@pytest.mark.parametrize("name", WORKS)
def test_the_ceiling_that_is_named_will_do(saved: Path, source: Path, name: str) -> None:
    """Below it the same bits; and an error at the first ceiling that is too low has passed none either."""
    climb(saved, source, WORKS[name])


@pytest.mark.slow
def test_weights_behind_the_pooling(saved: Path, source: Path, tmp_path: Path) -> None:
    """They are counted before the body runs, and so is the file that they are packed from."""
    folder = Path(shutil.copytree(saved, tmp_path / "dense"))
    modules = json.loads((folder / "modules.json").read_text())[:2]
    modules.append({"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "2_Dense").mkdir()
    shape = {"in_features": 384, "out_features": 16384, "bias": False}
    activation = {"activation_function": "torch.nn.modules.linear.Identity"}
    (folder / "2_Dense" / "config.json").write_text(json.dumps({**shape, **activation}))
    weight = np.random.default_rng(0).normal(size=(16384, 384)).astype(np.float32)
    save_file({"linear.weight": weight}, folder / "2_Dense" / "model.safetensors")
    work = "run(lambda: [encoder.encode(texts[:20], truncate_dim=size)[:, :8] for size in (16384, 16000, 15000)])"
    assert "the layers after pooling take" in below(folder, "100MiB", source, work)["error"]
    climb(folder, source, work)


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["auto", "int8"])
def test_what_fits_still_fits_with_more(minilm: Path, source: Path, weights: str) -> None:
    """From the lowest ceiling that does, all higher ones do: whether weights go to a file or stay, smoothed or not."""
    fits = []
    for memory in range(80, 150, 10):
        found = below(minilm, f"{memory}MiB", source, f"weights = {weights!r}\n" + WORKS["texts"])
        assert found["peak"] <= memory * MIB
        fits.append("bits" in found)
    assert fits == sorted(fits)
    assert fits[-2:] == [True, True]


def test_rows_of_tables_are_read(saved: Path, source: Path) -> None:
    """No page of the file is mapped in by what runs."""
    work = """
        run(lambda: encoder.encode(texts))
        assert measure({Path(folder) / "longspan.safetensors"}).mapped < 1 << 20
    """
    assert below(saved, "1GiB", source, work)["bits"] == below(saved, "", source, WORKS["texts"])["bits"]


def test_a_huge_text_that_is_cut(saved: Path, source: Path) -> None:
    """Only what is made of it is counted."""
    work = """
        def work():
            encoder.long_text = "truncate"
            return encoder.encode(text * 200)
        run(work)
    """
    assert below(saved, "150MiB", source, work)["bits"] == below(saved, "", source, work)["bits"]
    refused = below(saved, "150MiB", source, "run(lambda: encoder.encode(text * 200))")
    assert "inputs[0] takes" in refused["error"]
    assert refused["peak"] <= 150 * MIB


def test_what_loading_takes_counts(minilm: Path, source: Path) -> None:
    """A ceiling that the process passed while it loaded is not one that it keeps."""
    work = """
        from longspan.executors import cpu
        joined = cpu.joined

        def greedy(*arguments):
            bytearray(300 << 20)[::4096] = b"x" * (300 << 8)
            return joined(*arguments)

        cpu.joined = greedy
        run(lambda: encoder.encode(texts))
    """
    found = below(minilm, "250MiB", source, work)
    assert "this process has had" in found["error"]
    assert found["smallest"] >= found["peak"] > 250 * MIB


def test_a_file_that_is_cut_while_it_runs(saved: Path, source: Path, tmp_path: Path) -> None:
    """Nothing is mapped, so that nobody is killed."""
    folder = Path(shutil.copytree(saved, tmp_path / "cut"))
    work = """
        def work():
            threading.Timer(0.2, lambda: os.truncate(Path(folder) / "longspan.safetensors", 10**6)).start()
            for _ in range(50):
                encoder.encode(texts)
        run(work)
    """
    found = below(folder, "1GiB", source, work)
    assert str(folder / "longspan.safetensors") in found["error"]


def test_a_call_inside_a_call(saved: Path, source: Path) -> None:
    """A signal handler's call has an error, and the one that it interrupts goes on."""
    work = """
        seen = []

        def handler(*_):
            try:
                encoder.encode("a query")
                seen.append("")
            except RuntimeError as error:
                seen.append(str(error))

        def work():
            signal.signal(signal.SIGALRM, handler)
            signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
            found = encoder.encode(texts * 3)
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert any("inside a running call" in one for one in seen), seen
            return found
        run(work)
    """
    expected = below(saved, "", source, "run(lambda: encoder.encode(texts * 3))")
    assert below(saved, "1GiB", source, work)["bits"] == expected["bits"]
