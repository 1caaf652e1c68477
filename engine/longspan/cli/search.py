"""`longspan search`: the passages of files that answer a question best."""

from __future__ import annotations

import argparse
import shutil
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError, LongTextWarning
from .options import add_command, add_json, add_memory, add_model, add_records, positive
from .terminal import one_line, show, show_json

if TYPE_CHECKING:
    from ..encoder import Encoder
    from .inputs import Document

DESCRIPTION = """\
Embeds files and prints the passages that are closest to a question. Files are read as by `longspan embed`: text,
Markdown, JSONL and CSV records, folders, or - for standard input. Passages are late-chunked: each one's vector knows
the document around it. A text that occurs several times is shown once, where it fits best."""
EXAMPLE = "example:\n  longspan search contract.txt annexes/ 'Who may end the contract?' --model MODEL --top 3"
MOST_COLUMNS = 100


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk of a document: its score, the document's id, its place in characters, its text."""

    score: float
    file: str
    start: int
    end: int
    text: str


def add_parser(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    parser = add_command(commands, "search", run, "the passages of files that answer a question", DESCRIPTION, EXAMPLE)
    parser.add_argument("files", nargs="+", metavar="FILE", help="a file, a folder, or - for standard input")
    parser.add_argument("question", metavar="QUESTION")
    add_model(parser)
    add_memory(parser)
    parser.add_argument(
        "--chunk-tokens", type=positive, default=128, metavar="N", help="tokens of a passage, at most (default: 128)"
    )
    parser.add_argument("--top", type=positive, default=5, metavar="N", help="how many passages (default: 5)")
    add_records(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from ..encoder import Encoder
    from ..text.inputs import check_text
    from .inputs import Columns, grouped, read_documents
    from .skipped import Skipped, report_skipped
    from .sources import find_sources

    if not check_text(args.question, "the question").strip():
        raise InputError("the question is empty")
    sources = find_sources(args.files, input_format=args.input_format)
    encoder = Encoder(args.model, weights=args.weights, threads=args.threads, memory=args.memory)
    skipped = Skipped(args.skip_errors)
    groups = grouped(read_documents(sources, Columns(args.text_field, args.id_field), skipped))
    best = search(encoder, args.question, groups, args.chunk_tokens, args.top)
    if args.json:
        report = {"question": args.question, "model": args.model, "passages": [asdict(passage) for passage in best]}
        show_json({**report, "skipped": skipped.count, "skipped_records": skipped.named})
    else:
        columns = min(shutil.get_terminal_size().columns, MOST_COLUMNS)
        show(line for number, passage in enumerate(best, 1) for line in _lines(number, passage, columns))
    report_skipped(skipped.count, skipped.named)
    if not best:
        raise InputError("the files hold no text")
    return 0


def search(
    encoder: Encoder, question: str, groups: Iterable[Sequence[Document]], chunk_tokens: int, top: int
) -> list[Passage]:
    """The best passages, best first, each text once; passages of the same score in their order."""
    query = encoder.encode_query(question, show_progress_bar=False)
    best: dict[str, Passage] = {}
    for group in groups:
        for passage in _ranked(encoder, query, group, chunk_tokens):
            key = one_line(passage.text)
            if key not in best or passage.score > best[key].score:
                best[key] = passage
        # Sorting is stable. What falls out now cannot come back but with a better score.
        best = dict(sorted(best.items(), key=lambda item: -item[1].score)[:top])
    return list(best.values())


def _ranked(encoder: Encoder, query: Any, group: Sequence[Document], chunk_tokens: int) -> Iterator[Passage]:
    """All passages of a group, best first."""
    import numpy as np

    from ..search import semantic_search

    texts = [document.text for document in group]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LongTextWarning)  # passages are found in windows as well
        results = encoder.encode_chunks(texts, chunk_tokens=chunk_tokens, show_progress_bar=False)
    places = [
        (document, result, chunk)
        for document, result in zip(group, results, strict=True)
        for chunk in range(len(result))
    ]
    if not places:
        return
    vectors = np.concatenate([result.vectors for result in results])
    hits = semantic_search(query, vectors, len(places), similarity_fn_name=encoder.similarity_fn_name)
    for score, index in zip(hits.scores[0].tolist(), hits.indices[0].tolist(), strict=True):
        if score != score:  # NaN, and all behind it
            return
        document, result, chunk = places[index]
        start, end = result.spans[chunk]
        yield Passage(score, document.id, start, end, result.text(chunk))


def _lines(number: int, passage: Passage, columns: int) -> Iterator[str]:
    head = f"{number}."
    yield f"{head} {passage.score:.3f}  {one_line(passage.file)}  {passage.start}-{passage.end}"
    indent = " " * (len(head) + 1)
    width = max(columns, len(indent) + 20)
    yield from textwrap.wrap(one_line(passage.text), width, initial_indent=indent, subsequent_indent=indent)
    yield ""
