"""Embeds one long text into vectors, a vector per passage, and answers questions with the best passages.

    python examples/demo.py                     the Python language reference, and three questions about it
    python examples/demo.py FILE QUESTION       any text file in UTF-8, and any question

FILE and QUESTION can also be given as environment variables, which is how `make demo` hands them over.
"""

from __future__ import annotations

import argparse
import bisect
import importlib
import os
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from console import Style, peak_memory, wrapped
from model import model_folder

QUESTIONS = (
    "When are default parameter values evaluated?",
    "How are chained comparisons such as a < b < c evaluated?",
    "How do I step through a program in the debugger?",
)


class InputError(Exception):
    """Something is wrong with what the user gave; the message is one line."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; empty environment variables count as absent."""
    parser = argparse.ArgumentParser(description="Search one long text for passages that answer a question.")
    parser.add_argument("file", nargs="?", metavar="FILE", default=os.environ.get("FILE") or None)
    parser.add_argument("question", nargs="?", metavar="QUESTION", default=os.environ.get("QUESTION") or None)
    parser.add_argument("--model", metavar="FOLDER", help="model folder or hub id (default: the demo's model)")
    parser.add_argument("--chunk-tokens", type=int, default=128, metavar="N", help="size of a passage (default: 128)")
    parser.add_argument("--top", type=int, default=3, metavar="N", help="passages per question (default: 3)")
    return parser.parse_args(arguments)


def read(file: str | None) -> tuple[str, str]:
    """A name for the text, and the text."""
    if file is None:
        try:
            topics = importlib.import_module("pydoc_data.topics").topics
        except ImportError:
            raise InputError(
                "this Python lacks pydoc_data.topics, the demo's own text (on Debian and Ubuntu it comes with the "
                "package libpython3-stdlib); name a text of yours: make demo FILE=book.txt QUESTION='…'"
            ) from None
        return "the Python language reference, as `help()` shows it", "\n\n".join(topics.values())
    try:
        text = Path(file).read_bytes().decode("utf-8")  # bytes, so that line ends stay and spans fit the file
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8: byte 0x{error.object[error.start]:02x} at {error.start:,}") from None
    if not text.strip():
        raise InputError(f"{file} is empty")
    return file, text


def load(model: str | None) -> Any:
    """The encoder, and the reason in one line where there is none."""
    try:
        encoder_class = importlib.import_module("longspan").Encoder
        return encoder_class(model or str(model_folder()))
    except ModuleNotFoundError as error:
        raise InputError(f"{error}: run `make demo`, which installs it") from None
    except (OSError, ValueError) as error:
        raise InputError(str(error)) from None


def best_passages(scores: Any, passages: list[str]) -> Iterator[int]:
    """Numbers of the passages, best first. A text that occurs several times is shown once, where it fits best."""
    seen: set[str] = set()
    for index in scores.argsort()[::-1].tolist():
        text = " ".join(passages[index].split())
        if text and text not in seen:
            seen.add(text)
            yield index


def context(document: Any) -> str:
    """How much of the document the tokens of a passage attended to.

    A token attends to all of the window that owns it; a passage on a border has tokens in two windows or more.
    """
    starts = [window.owned_start for window in document.windows]
    sizes = []
    for first, last in document.token_spans:
        if first < last:
            head = document.windows[bisect.bisect_right(starts, first) - 1]
            tail = document.windows[bisect.bisect_right(starts, last - 1) - 1]
            sizes.append(tail.end - head.start)
    if not sizes:
        return "none"
    mean = sum(sizes) / len(sizes)
    return f"a passage saw {min(sizes):,} to {max(sizes):,} tokens of the document, {mean:,.0f} on average"


def windows(document: Any) -> str:
    """What the model saw at a time."""
    sizes = [window.end - window.start for window in document.windows]
    if len(sizes) == 1:
        return "one: the model read the document in one piece"
    return f"{len(sizes):,} of up to {max(sizes):,} tokens; with their overlap the model read {sum(sizes):,} tokens"


def facts(style: Style, rows: list[tuple[str, str]]) -> None:
    """Aligned lines of a name and what is to be said about it."""
    for name, value in rows:
        for number, line in enumerate(wrapped(value, indent=15)):
            print(f"  {style.dim(f'{name:<12}') if number == 0 else ' ' * 12} {line.strip()}")


def answer(encoder: Any, document: Any, question: str, top: int, style: Style) -> None:
    """Prints the passages nearest to the question."""
    print("\n" + "\n".join(style.bold(line) for line in wrapped(question, indent=0)))
    scores = encoder.similarity(encoder.encode_query(question), document.vectors)[0]
    passages = [document.text(index) for index in range(len(document.spans))]
    for place, index in enumerate(best_passages(scores, passages)):
        if place == top:
            break
        start, end = document.spans[index]
        print(f"  {style.accent(f'{float(scores[index]):.3f}')}  {style.dim(f'characters {start:,} to {end:,}')}")
        print("\n".join(wrapped(passages[index], indent=9)))


def main() -> int:
    """Reads, embeds, answers."""
    options = parse()
    style = Style()
    if options.chunk_tokens < 1 or options.top < 1:
        raise InputError("--chunk-tokens and --top must be at least 1")
    name, text = read(options.file)
    encoder = load(options.model)
    facts(style, [("text", name), ("size", f"{len(text):,} characters")])
    sys.stdout.flush()

    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the facts below tell of windows
        document = encoder.encode_chunks(text, chunk_tokens=options.chunk_tokens, show_progress_bar=True)
    seconds = time.perf_counter() - start
    passages, width = document.vectors.shape
    rows = [
        ("tokens", f"{document.n_tokens:,} in {seconds:.1f} s: {document.n_tokens / seconds:,.0f} tokens/s"),
        ("passages", f"{passages:,} of about {options.chunk_tokens} tokens, a vector of {width} numbers each"),
        ("windows", windows(document)),
        ("context", context(document)),
        ("peak memory", peak_memory()),
    ]
    facts(style, rows)
    for question in [options.question] if options.question else [] if options.file else QUESTIONS:
        answer(encoder, document, question, options.top, style)
    if options.file and not options.question:
        print("\nAsk it something: make demo FILE=… QUESTION='…'")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as problem:
        print(f"demo: {problem}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
