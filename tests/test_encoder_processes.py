"""An encoder in other processes: pickled, spawned, forked and interrupted."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longspan import Encoder

TEXTS = ["The weather is lovely today.", "", "naïve 😀 " * 40]


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    """A script in a fresh interpreter, which finds the packages that this one finds."""
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        command, env=environment, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def same_bits(a: Any, b: Any) -> bool:
    return a.shape == b.shape and bool((a.view(np.uint32) == b.view(np.uint32)).all())


def test_pickle_keeps_the_settings(minilm: Path) -> None:
    encoder = Encoder(minilm, prompts={"query": "Q: "}, truncate_dim=64, similarity_fn_name="dot", threads=1)
    encoder.max_seq_length = 40
    encoder.long_text = "truncate"
    encoder.prompts["later"] = "L: "
    copy = pickle.loads(pickle.dumps(encoder))
    names = ("max_seq_length", "long_text", "prompts", "truncate_dim", "similarity_fn_name", "default_prompt_name")
    assert {name: getattr(copy, name) for name in names} == {name: getattr(encoder, name) for name in names}
    assert same_bits(copy.encode_query(TEXTS[:2]), encoder.encode_query(TEXTS[:2]))


@pytest.mark.parametrize(
    ("name", "value"),
    [("similarity_fn_name", "dot"), ("default_prompt_name", "query"), ("truncate_dim", None), ("long_text", "error")],
)
def test_pickle_keeps_what_was_set_later(minilm: Path, name: str, value: str | None) -> None:
    encoder = Encoder(minilm, prompts={"query": "Q: "}, truncate_dim=64)
    setattr(encoder, name, value)
    assert getattr(pickle.loads(pickle.dumps(encoder)), name) == value


def test_pickle_keeps_calibrated_ranges(minilm: Path) -> None:
    encoder = Encoder(minilm)
    encoder.calibrate(TEXTS)
    copy = pickle.loads(pickle.dumps(encoder))
    expected = encoder.encode(TEXTS[0], precision="int8")
    assert copy.encode(TEXTS[0], precision="int8").tolist() == expected.tolist()


@pytest.mark.slow
def test_spawned_process(minilm: Path, tmp_path: Path) -> None:
    """What multiprocessing's "spawn" does, by a script, since a test module cannot be imported by name."""
    script = """
        import multiprocessing, pathlib, sys
        import numpy as np
        from longspan import Encoder

        if __name__ == "__main__":
            encoder = Encoder(sys.argv[1])
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                np.save(sys.argv[2], pool.apply(Encoder.encode, (encoder, eval(sys.argv[3]))))
    """
    child = start(script, minilm, tmp_path / "vectors.npy", repr(TEXTS))
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 0, errors
    assert same_bits(np.load(tmp_path / "vectors.npy"), Encoder(minilm).encode(TEXTS))


@pytest.mark.parametrize("threads", [1, 2])
def test_child_forked_in_a_signal_handler(small: Path, threads: int) -> None:
    """In the midst of the parent's call, of which the child is no part."""
    script = """
        import os, signal, sys
        from longspan import Encoder

        encoder = Encoder(sys.argv[1], threads=int(sys.argv[2]))
        text = "the quick brown fox " * 10
        alone = encoder.encode(text).tobytes()
        found = []

        def fork(*_):
            child = os.fork()
            if child == 0:
                signal.alarm(30)
                status = 3
                try:
                    status = 0 if encoder.encode(text).tobytes() == alone else 4
                finally:
                    os._exit(status)
            found.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

        signal.signal(signal.SIGALRM, fork)
        count = 2000
        while not found:  # until a call lasts
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            vectors = encoder.encode([text] * count)
            count *= 2
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert vectors[-1].tobytes() == alone
        print(found)
    """
    child = start(script, small, threads)
    output, errors = child.communicate(timeout=100)
    assert child.returncode == 0, errors
    assert set(eval(output)) == {0}


@pytest.mark.slow
def test_forked_child(minilm: Path) -> None:
    """The child has none of the parent's worker threads and must start its own."""
    script = """
        import os, signal, sys
        from longspan import Encoder

        encoder = Encoder(sys.argv[1], threads=2)
        texts = eval(sys.argv[2]) * 50
        expected = encoder.encode(texts).tobytes()
        for _ in range(3):
            child = os.fork()
            if child == 0:
                signal.alarm(30)
                os._exit(0 if encoder.encode(texts).tobytes() == expected else 3)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert encoder.encode(texts).tobytes() == expected
    """
    child = start(script, minilm, repr(TEXTS))
    _, errors = child.communicate(timeout=100)
    assert child.returncode == 0, errors


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_fork_while_other_threads_encode(minilm: Path, threads: int) -> None:
    script = """
        import os, signal, sys, threading, time
        from longspan import Encoder

        encoder = Encoder(sys.argv[1], threads=int(sys.argv[2]))
        expected = encoder.encode(["a text"]).tobytes()
        stop = threading.Event()

        def work(texts):
            while not stop.is_set():
                encoder.encode(texts)

        calls = ["a text", "another", ["a text " * 100] * 8, ["a text " * 100] * 30]  # some of them wait together
        workers = [threading.Thread(target=work, args=(texts,)) for texts in calls]
        for worker in workers:
            worker.start()
        for _ in range(10):
            time.sleep(0.01)
            child = os.fork()
            if child == 0:
                signal.alarm(30)
                os._exit(0 if encoder.encode(["a text"]).tobytes() == expected else 3)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        stop.set()
        for worker in workers:
            worker.join()
    """
    child = start(script, minilm, threads)
    _, errors = child.communicate(timeout=100)
    assert child.returncode == 0, errors


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", ["many short texts", "one text in windows", "long segments"])
def test_interrupt(minilm: Path, threads: int, shape: str) -> None:
    """Ctrl-C ends the call within 2 s, and the encoder can be used again."""
    script = """
        import signal, sys, time
        from longspan import Encoder

        signal.signal(signal.SIGINT, signal.default_int_handler)
        shape, encoder = sys.argv[2], Encoder(sys.argv[1], threads=int(sys.argv[3]))
        expected = encoder.encode("a text").tobytes()
        if shape == "long segments":
            encoder.max_seq_length = 512
        text = "The cat sat on the mat, and the dog looked at it. "
        print("begin", flush=True)
        try:
            encoder.encode(["a short text"] * 200_000 if shape == "many short texts" else text * 40_000)
        except KeyboardInterrupt:
            stopped = time.time()
            assert encoder.encode("a text").tobytes() == expected
            print(stopped, flush=True)
            raise
    """
    child = start(script, minilm, shape, threads)
    assert child.stdout is not None
    assert child.stdout.readline() == "begin\n"
    time.sleep(1.5)  # now it is past tokenising the first slice
    sent = time.time()
    child.send_signal(signal.SIGINT)
    output, errors = child.communicate(timeout=60)
    assert errors.rstrip().endswith("KeyboardInterrupt"), errors
    assert child.returncode == -signal.SIGINT
    assert float(output) - sent < 2
    assert time.time() - sent < 4


@pytest.mark.slow
def test_interrupts_hit_the_main_thread_alone(small: Path) -> None:
    """Again and again, wherever it is, while other threads encode on the same encoder; nobody waits for ever."""
    script = """
        import random, signal, sys, threading
        from longspan import Encoder

        encoder = Encoder(sys.argv[1], threads=2)
        calls = ["a short text", "another one", ["a text of a few more words than that"] * 400]
        expected = [encoder.encode(call).tobytes() for call in calls]
        stop, failures, counts = threading.Event(), [], [0] * 3

        def call(seed):
            index = min(random.Random(seed).randrange(40), 2)
            return encoder.encode(calls[index]).tobytes() == expected[index]

        def work(worker):
            try:
                while not stop.is_set():
                    counts[worker] += 1
                    assert call(counts[worker])
            except BaseException as failure:
                failures.append(failure)

        def interrupt(*_):
            raise KeyboardInterrupt

        signal.alarm(60)
        signal.signal(signal.SIGVTALRM, interrupt)
        workers = [threading.Thread(target=work, args=(i,)) for i in range(3)]
        for worker in workers:
            worker.start()
        for seed in range(150):
            try:
                signal.setitimer(signal.ITIMER_VIRTUAL, random.Random(seed).random() * 0.01)
                while call(seed):
                    pass
                failures.append(seed)
            except KeyboardInterrupt:
                pass
        before = list(counts)
        while any(a == b for a, b in zip(before, counts)):
            assert call(0)
        stop.set()
        for worker in workers:
            worker.join()
        assert not failures, failures
    """
    child = start(script, small)
    _, errors = child.communicate(timeout=100)
    assert child.returncode == 0, errors


def test_small_thread_stacks(minilm: Path) -> None:
    """A caller's thread may have little stack, as all threads do on musl."""
    script = """
        import sys, threading
        from longspan import Encoder

        encoder = Encoder(sys.argv[1], threads=1)
        threading.stack_size(256 * 1024)
        thread = threading.Thread(target=lambda: print(encoder.encode("word " * 200).shape))
        thread.start()
        thread.join()
    """
    child = start(script, minilm)
    output, errors = child.communicate(timeout=60)
    assert child.returncode == 0, errors
    assert output.strip() == "(384,)"


def test_a_signal_handler_that_encodes_gets_an_error(minilm: Path) -> None:
    """It runs inside the call that it interrupts, and would wait for itself."""
    script = """
        import signal, sys, warnings
        from longspan import Encoder

        warnings.simplefilter("ignore")
        encoder = Encoder(sys.argv[1], threads=1)

        def handler(*_):
            try:
                encoder.encode("inside")
            except RuntimeError as error:
                print("inside" in str(error), 5e-324 * 1.0 > 0)

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        print(encoder.encode("word " * 30000).shape)
    """
    child = start(script, minilm)
    output, errors = child.communicate(timeout=120)
    assert child.returncode == 0, errors
    assert output.splitlines() == ["True True", "(384,)"]


def test_the_interpreter_may_end_while_a_daemon_thread_encodes(minilm: Path) -> None:
    script = """
        import sys, threading, time, warnings
        from longspan import Encoder

        warnings.simplefilter("ignore")
        encoder = Encoder(sys.argv[1], threads=2)

        def work():
            while True:
                encoder.encode("The quick brown fox jumps over the lazy dog. " * 3000)

        threading.Thread(target=work, daemon=True).start()
        time.sleep(0.3)
    """
    for _ in range(3):
        child = start(script, minilm)
        _, errors = child.communicate(timeout=60)
        assert child.returncode == 0, errors
