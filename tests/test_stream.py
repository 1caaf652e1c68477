"""Streams: the vectors of lists, one by one, in bounded memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longspan import Encoder, InputError, InputTypeError, LongTextWarning, encoding
from longspan.prefetch import prefetched

TEXTS = [f"Text number {i}. " * (1 + i % 7) for i in range(40)] + [""]


@pytest.fixture(scope="module")
def encoder(minilm: Path) -> Encoder:
    return Encoder(minilm)


def test_texts_have_the_bits_of_encode(encoder: Encoder) -> None:
    found = list(encoder.stream(text for text in TEXTS))
    np.testing.assert_array_equal(np.stack(found), encoder.encode(TEXTS))
    assert all(vector.flags.owndata for vector in found)  # keeping one keeps no other


def test_chunks_have_the_bits_of_encode_chunks(encoder: Encoder) -> None:
    documents = ["One sentence. Another one! " * n for n in (1, 30, 0, 90)]
    found = list(encoder.stream(iter(documents), chunk_tokens=32))
    expected = encoder.encode_chunks(documents, chunk_tokens=32)
    places = [(i, j) for i, document in enumerate(expected) for j in range(len(document))]
    assert [(chunk.document, chunk.chunk) for chunk in found] == places
    assert [chunk.span for chunk in found] == [span for document in expected for span in document.spans]
    assert all(chunk.vector.flags.owndata for chunk in found)
    np.testing.assert_array_equal(
        np.stack([chunk.vector for chunk in found]), np.concatenate([document.vectors for document in expected])
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(
        st.lists(st.sampled_from(["word ", "naïve. ", "😀\r\n", "."]), max_size=30).map("".join), max_size=12
    ),
    bounds=st.tuples(st.integers(1, 5), st.integers(1, 200)),
    size=st.integers(1, 9),
    overlap=st.integers(0, 8),
    threads=st.sampled_from([1, 2]),
)
@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
def test_slices_and_generators_change_no_bit(
    small: Path, texts: list[str], bounds: tuple[int, int], size: int, overlap: int, threads: int
) -> None:
    encoder = Encoder(small, device="cpu", threads=threads, max_seq_length=24)
    options: dict[str, Any] = {"chunk_tokens": size, "chunk_overlap": min(overlap, size - 1), "window_overlap": 3}
    expected = encoder.encode(texts)
    documents = encoder.encode_chunks(texts, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "_SLICE_TEXTS", bounds[0])
        patch.setattr(encoding, "_SLICE_CHARACTERS", bounds[1])
        found = list(encoder.stream(text for text in texts))
        chunks = list(encoder.stream(iter(texts), **options))
        again = encoder.encode(texts)
    assert [vector.tobytes() for vector in found] == [vector.tobytes() for vector in expected]
    assert again.tobytes() == expected.tobytes()
    assert [(chunk.document, chunk.chunk, chunk.span, chunk.vector.tobytes()) for chunk in chunks] == [
        (i, j, span, vector.tobytes())
        for i, document in enumerate(documents)
        for j, (span, vector) in enumerate(zip(document.spans, document.vectors, strict=True))
    ]


def test_reads_no_more_than_it_needs(encoder: Encoder) -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield "a short text"

    stream = encoder.stream(endless())
    first = next(stream)
    np.testing.assert_array_equal(first, encoder.encode("a short text"))
    stream.close()  # type: ignore[attr-defined]
    assert taken < 20_000


def test_options_are_checked_at_once_and_texts_in_their_turn(encoder: Encoder) -> None:
    with pytest.raises(InputTypeError, match="texts is str"):
        encoder.stream("one text")
    with pytest.raises(InputTypeError, match="texts is set"):
        encoder.stream({"a", "b"})
    for options in ({"chunk_tokens": 0}, {"chunk_tokens": (4, 8)}):
        with pytest.raises(InputError, match=r"chunk_tokens is .*, expected an integer of at least 1"):
            encoder.stream([], **options)
    with pytest.raises(InputError, match="chunk_overlap is 3, but it goes with chunk_tokens only"):
        encoder.stream([], chunk_overlap=3)
    with pytest.raises(InputError, match="truncate_dim"):
        encoder.stream([], truncate_dim=1000)
    with pytest.raises(InputTypeError, match=r"texts\[1\] is int"):
        list(encoder.stream(["fine", 7]))  # type: ignore[list-item]
    assert list(encoder.stream([])) == []


def test_warns_of_what_was_taken_where_the_rest_is_not(encoder: Encoder) -> None:
    stream: Any = encoder.stream(["word " * 600, "short"])
    next(stream)
    with pytest.warns(LongTextWarning, match="1 of 2 texts are longer"):
        stream.close()


def test_int8_without_calibration_is_refused_at_once(encoder: Encoder) -> None:
    with pytest.raises(InputError, match=r"call encoder\.calibrate\(texts, truncate_dim=64\)"):
        encoder.stream(["a"], precision="int8", truncate_dim=64)
    with pytest.raises(InputError, match=r"call encoder\.calibrate\(texts\)"):
        encoder.encode([], precision="uint8")


def test_warns_once_at_the_end(encoder: Encoder) -> None:
    with pytest.warns(LongTextWarning) as warned:
        list(encoder.stream(["word " * 600, "short", "word " * 700]))
    assert len(warned) == 1
    assert str(warned[0].message).startswith("2 of 3 texts are longer than the 256 tokens")
    assert "(the longest has 700)" in str(warned[0].message)
    assert warned[0].filename == __file__


def test_prefetched_keeps_order_and_errors() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise ValueError("after five")

    found: list[int] = []
    with pytest.raises(ValueError, match="after five"):
        found.extend(prefetched(items()))
    assert found == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_memory_stays_flat(minilm: Path) -> None:
    """Ten times the texts, hardly more memory; a tiny window keeps the arithmetic short."""
    script = """
        import sys
        from pathlib import Path
        from longspan import Encoder

        def peak():
            return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) >> 10

        encoder = Encoder(sys.argv[1], long_text="truncate", max_seq_length=8)
        text = "The quick brown fox jumps over the lazy dog. " * 40

        def run(count):
            import warnings
            warnings.simplefilter("ignore")
            for vector in encoder.stream((f"{i} {text}" for i in range(count))):
                pass
            return peak()

        first = run(3000)
        print(run(15000) - first)
    """
    lines = [line[8:] for line in script.splitlines()]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    run = subprocess.run(
        [sys.executable, "-c", "\n".join(lines), str(minilm)], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 60  # MiB
