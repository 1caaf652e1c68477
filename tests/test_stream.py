"""Streams: the vectors of lists, one by one, in bounded memory."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longspan import Encoder, InputError, InputTypeError, LongTextWarning, SizedChunk, slices
from longspan.prefetch import prefetched
from longspan.text.inputs import Input

TEXTS = [f"Text number {i}. " * (1 + i % 7) for i in range(40)] + [""]


@pytest.fixture(scope="module")
def encoder(minilm: Path) -> Encoder:
    return Encoder(minilm)


def test_texts_have_the_bits_of_encode(encoder: Encoder) -> None:
    found = list(encoder.stream(text for text in TEXTS))
    np.testing.assert_array_equal(np.stack(found), encoder.encode(TEXTS))
    assert all(vector.flags.owndata for vector in found)  # keeping one keeps no other


@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
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
        patch.setattr(slices, "_SLICE_TEXTS", bounds[0])
        patch.setattr(slices, "_SLICE_CHARACTERS", bounds[1])
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


def test_the_first_text_waits_for_no_other(encoder: Encoder) -> None:
    """Nor do later ones wait for more than there were before them."""
    taken = 0

    def feed() -> Iterator[str]:
        nonlocal taken
        for text in ["A fast text. "] * 100:
            taken += 1
            yield text

    for number, _ in enumerate(encoder.stream(feed()), 1):
        assert taken == 1 if number == 1 else taken <= 4 * number + 3


def test_a_slice_of_a_stream_is_bounded(encoder: Encoder) -> None:
    groups = list(slices.streamed_groups(Input("x" * 3000) for _ in range(2000)))
    assert [len(group.inputs) for group in groups[:4]] == [1, 2, 4, 8]
    assert max(group.characters for group in groups) <= slices._STREAM_CHARACTERS
    assert sum(len(group.inputs) for group in groups) == 2000
    huge = list(slices.streamed_groups(Input("x" * (1 << 22)) for _ in range(3)))
    assert [len(group.inputs) for group in huge] == [1, 1, 1]


def test_slow_texts_are_not_held_back(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "_PATIENCE", 0)  # every text is slow
    taken = 0

    def feed() -> Iterator[str]:
        nonlocal taken
        for text in TEXTS:
            taken += 1
            yield text

    for number, vector in enumerate(encoder.stream(feed()), 1):
        assert taken <= max(number, 2)  # the first tells whether texts are lists of chunks
        np.testing.assert_array_equal(vector, encoder.encode(TEXTS[number - 1]))
    assert taken == len(TEXTS)


def test_reads_from_a_database_of_the_callers_thread(encoder: Encoder) -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("create table texts (text)")
        connection.executemany("insert into texts values (?)", [(text,) for text in TEXTS])
        rows = connection.execute("select text from texts order by rowid")  # refuses other threads
        found = list(encoder.stream(row[0] for row in rows))
    np.testing.assert_array_equal(np.stack(found), encoder.encode(TEXTS))


def broken_feed() -> Iterator[str]:
    yield from TEXTS[:9]
    raise ConnectionError("the line is down")


def refuses_six(text: str) -> list[str]:
    if text == TEXTS[6]:
        raise ValueError("not this one")
    return [text]


@pytest.mark.parametrize(
    ("texts", "options", "before", "error"),
    [
        (broken_feed, {}, 9, ConnectionError),
        (broken_feed, {"chunk_tokens": 500}, 9, ConnectionError),
        (lambda: iter([*TEXTS[:5], None]), {}, 5, InputTypeError),
        (lambda: iter([*TEXTS[:5], "\ud800"]), {"chunk_tokens": 500}, 5, InputError),
        (lambda: iter(TEXTS), {"splitter": refuses_six}, 6, InputError),
        (lambda: iter(TEXTS[:3]), {"spans": [[(0, 4)], [(5, 11)], [(9, 4)]]}, 2, InputError),
        (lambda: iter(TEXTS[:3]), {"spans": [[(0, 4)], [(5, 11)]]}, 2, InputError),
        (lambda: iter(TEXTS[:2]), {"spans": [[(0, 4)], [(5, 11)], []]}, 2, InputError),
        (lambda: iter([["a", "b c"], ["d"], "e"]), {}, 3, InputTypeError),
        (lambda: iter([["a", "b c"], ["d", ""]]), {}, 2, InputError),
        (lambda: iter(["a", ["b"]]), {"chunk_tokens": 4}, 1, InputError),
        (lambda: iter(["a", ["b"]]), {}, 1, InputTypeError),
    ],
)
def test_what_comes_before_an_error_is_not_lost(
    encoder: Encoder, texts: Any, options: dict[str, Any], before: int, error: type[Exception]
) -> None:
    found: list[Any] = []
    with pytest.raises(error):
        found.extend(encoder.stream(texts(), **options))
    assert len(found) == before


def test_a_text_that_is_too_long_loses_none_before_it(small: Path) -> None:
    encoder = Encoder(small, device="cpu", max_seq_length=16, long_text="error")
    found: list[Any] = []
    with pytest.raises(InputError, match=r"texts\[3\] has 100 tokens, but only 14 fit the model at once"):
        found.extend(encoder.stream(["a", "b", "c", "d " * 100, "e"]))
    np.testing.assert_array_equal(np.stack(found), encoder.encode(["a", "b", "c"]))


@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
def test_levels_given_spans_and_lists_of_chunks(encoder: Encoder) -> None:
    documents = ["One sentence. Another one! " * n for n in (1, 30, 0, 90)]
    expected = encoder.encode_chunks(documents, chunk_tokens=(16, 64))
    sized = list(encoder.stream(iter(documents), chunk_tokens=(16, 64)))
    places = [
        (i, j, level.spans[j], level.vectors[j].tobytes(), size)
        for i, document in enumerate(expected)
        for size, level in document.levels.items()
        for j in range(len(level))
    ]
    assert [(*chunk[:3], chunk.vector.tobytes(), chunk.size) for chunk in sized] == places
    assert all(isinstance(chunk, SizedChunk) for chunk in sized)

    spans = [document.spans for document in expected]
    found = list(encoder.stream(iter(documents), spans=iter(spans)))
    assert [(*chunk[:3], chunk.vector.tobytes()) for chunk in found] == [row[:4] for row in places if row[4] == 16]

    pieces = [[text[a:b] for a, b in mine] for text, mine in zip(documents, spans, strict=True)]
    listed = encoder.encode_chunks(pieces, joiner="\n")
    found = list(encoder.stream(iter(pieces), joiner="\n"))
    assert [(chunk.document, chunk.span, chunk.vector.tobytes()) for chunk in found] == [
        (i, span, vector.tobytes())
        for i, document in enumerate(listed)
        for span, vector in zip(document.spans, document.vectors, strict=True)
    ]


def test_chunks_follow_the_policy_for_long_texts(minilm: Path) -> None:
    encoder = Encoder(minilm, long_text="truncate")
    with pytest.warns(LongTextWarning, match="1 of 2 texts are longer than the 256 tokens .* were cut"):
        found = list(encoder.stream(["word " * 600, "short"], chunk_tokens=100))
    assert [(chunk.document, chunk.span) for chunk in found] == [
        (0, (0, 499)),
        (0, (500, 999)),
        (0, (1000, 1269)),
        (1, (0, 5)),
    ]


def test_options_are_checked_at_once_and_texts_in_their_turn(encoder: Encoder) -> None:
    with pytest.raises(InputTypeError, match="texts is str"):
        encoder.stream("one text")
    with pytest.raises(InputTypeError, match="texts is set"):
        encoder.stream({"a", "b"})
    with pytest.raises(InputError, match=r"chunk_tokens is 0, expected an integer of at least 1"):
        encoder.stream([], chunk_tokens=0)
    with pytest.raises(InputError, match="give the chunks one way"):
        encoder.stream([], chunk_tokens=5, spans=[])
    with pytest.raises(InputTypeError, match="spans is int, expected an iterable"):
        encoder.stream([], spans=5)  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match="joiner is int"):
        encoder.stream([], joiner=5)  # type: ignore[arg-type]
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
    with pytest.warns(LongTextWarning, match="1 of 1 texts are longer"):
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

    for alone in (lambda item: False, lambda item: True, lambda item: item % 2 == 0):
        found: list[str] = []
        with pytest.raises(ValueError, match="after five"):
            found.extend(prefetched(str, items(), alone))
        assert found == ["0", "1", "2", "3", "4"]


def test_what_making_an_item_raises_comes_in_its_place() -> None:
    found: list[int] = []
    with pytest.raises(ZeroDivisionError):
        found.extend(prefetched(lambda item: 6 // item, iter([3, 2, 0, 1]), lambda item: False))
    assert found == [2, 3]


def test_items_are_taken_in_the_callers_thread_and_made_in_another() -> None:
    taken, made = set(), set()

    def items() -> Iterator[int]:
        for item in range(5):
            taken.add(threading.get_ident())
            yield item

    assert list(prefetched(lambda item: made.add(threading.get_ident()), items(), lambda item: False)) == [None] * 5
    assert taken == {threading.get_ident()}
    assert len(made) == 1
    assert made != taken


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
