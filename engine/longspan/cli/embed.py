"""`longspan embed`: files to vectors, in a run that can be interrupted and continued."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, MemoryCeilingError
from .options import add_command, add_json, add_memory, add_model, add_records, positive, sizes
from .terminal import counted, note, show_json

if TYPE_CHECKING:
    from ..encoder import Encoder
    from .shards import Journal
    from .sources import Source
    from .totals import Totals

PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")
SHAPING = (
    "format",
    "weights",
    "chunk_tokens",
    "precision",
    "prompt_name",
    "prompt",
    "truncate_dim",
    "normalize",
    "long_text",
    "input_format",
    "text_field",
    "id_field",
)

DESCRIPTION = """\
Embeds documents: text (.txt), Markdown (.md), JSONL and CSV records, folders of these, or standard input (-).

An interrupted run leaves its work in OUTPUT.partial; the same command continues it, and the output is the same, byte
for byte. Standard input is read whole before the work begins, and has to bring the same bytes again. The default is one
vector a document; with --chunk-tokens, documents are late-chunked and every chunk gets a vector that knows the document
around it.

Output: .npz has `vectors` and `ids`; of chunks also `document` (an index into `ids`) and `spans` (characters), of
several sizes `chunk_tokens`. JSONL and Parquet have a row per vector: id, of chunks also chunk, start and end, then
embedding. int8 and uint8 map the least and greatest value of each component over all vectors to their 256 levels; where
the model folder was saved with calibrated ranges of that dimension, it maps these. npz and Parquet keep them as `low`
and `high`.

--json prints, in place of the summary and once the output is whole: output, format, model, dimension, precision,
chunk_tokens, max_seq_length, long_text, resumed, documents, vectors, tokens (of the documents; null where truncate cut
them uncounted), long_documents (longer than max_seq_length, so cut or seen in windows), skipped, skipped_records (the
first of them), seconds (of this run)."""

EXAMPLES = """\
examples:
  longspan embed report.txt notes/ --model MODEL --output vectors.npz
  longspan embed corpus.jsonl --id-field doc_id --model MODEL --chunk-tokens 128,512 --output chunks.parquet
  jq -c '{text: .body}' raw.json | longspan embed - --input-format jsonl --model MODEL --output vectors.npz --json"""


def add_parser(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    parser = add_command(commands, "embed", run, "files to vectors", DESCRIPTION, EXAMPLES)
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="a file, a folder, or - for standard input")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="where the vectors go")
    parser.add_argument("--format", choices=("npz", "jsonl", "parquet"), help="default: by the output's suffix")
    add_model(parser)
    add_memory(parser)
    parser.add_argument("--chunk-tokens", type=sizes, metavar="N[,N…]", help="late chunks of at most so many tokens")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="of the vectors (default: float32)")
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument(
        "--prompt-name",
        metavar="NAME",
        help="one of the checkpoint's prompts (default: its default prompt; with --chunk-tokens, its document prompt)",
    )
    prompt.add_argument("--prompt", metavar="TEXT", help="a text to put before every document")
    parser.add_argument("--truncate-dim", type=positive, metavar="D", help="keep the leading D components")
    parser.add_argument("--normalize", action="store_true", help="unit length, even if the checkpoint does not say so")
    parser.add_argument(
        "--long-text",
        choices=("window", "truncate", "error"),
        help="what becomes of texts that are too long for the model (default: what the model folder was saved with, "
        "else window: overlapping windows)",
    )
    add_records(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace OUTPUT, and discard other interrupted work")
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no summary")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from ..checkpoint.folder import resolve
    from ..encoder import Encoder
    from .identity import identity_of
    from .outputs import Layout, format_of, write_output
    from .shards import open_journal, partial_folder
    from .skipped import report_skipped
    from .sources import find_sources
    from .totals import Totals

    start = time.perf_counter()
    output: Path = args.output
    args.format = format_of(output, args.format)
    _check_place(output)
    sources = find_sources(args.inputs, (output, partial_folder(output)), args.input_format)
    folder = resolve(args.model)
    encoder = Encoder(
        folder,
        weights=args.weights,
        long_text=args.long_text,
        truncate_dim=args.truncate_dim,
        threads=args.threads,
        memory=args.memory,
    )
    args.long_text = encoder.long_text
    identity = identity_of({name: getattr(args, name) for name in SHAPING}, encoder.folders, encoder.device, sources)
    dimension = encoder.get_embedding_dimension()
    ranges = encoder.ranges.get(dimension)
    if ranges is not None:  # do they fit vectors like these?
        encoder.encode([], precision=args.precision, normalize_embeddings=args.normalize, task=encoder.document_task)
    layout = Layout(tuple(args.chunk_tokens or ()), args.precision, dimension, ranges)
    with open_journal(output, identity, overwrite=args.overwrite) as journal, _advising(journal, sources):
        resumed = journal.finished or journal.count > 0
        totals = Totals(**journal.totals) if journal.finished else _work(args, encoder, sources, journal)
        journal.finish(lambda file: write_output(file, journal, layout, args.format), asdict(totals))
    report_skipped(totals.skipped, totals.skipped_records)
    if args.json:
        seconds = round(time.perf_counter() - start, 3)
        show_json({**_about(args, encoder), "resumed": resumed, **asdict(totals), "seconds": seconds})
    elif not args.quiet:
        note(_summary(totals, encoder, output))
    return 0


def _check_place(output: Path) -> None:
    if str(output) == "-":
        raise InputError("the output is a file: give it a name (- is standard input)")
    if output.is_dir() or not output.parent.is_dir():
        raise InputError(f"{output} is a folder" if output.is_dir() else f"the folder {output.parent} does not exist")
    if output.exists() and not output.is_file():
        raise InputError(f"{output} is a device, a pipe or a socket, which --overwrite would remove; name a file")


@contextlib.contextmanager
def _advising(journal: Journal, sources: Sequence[Source]) -> Iterator[None]:
    """Say how to go on if the run is cut short."""
    try:
        yield
    except (KeyboardInterrupt, OSError, MemoryError, MemoryCeilingError):
        if journal.count and journal.folder.exists():
            again = ", with the same standard input," if any(source.path is None for source in sources) else ""
            note(f"the work so far is in {journal.folder}; repeat the command{again} to continue")
        raise


def _work(args: argparse.Namespace, encoder: Encoder, sources: Sequence[Source], journal: Journal) -> Totals:
    """Embed what the journal lacks."""
    from .groups import Way, embed_all
    from .identity import inputs_fingerprint
    from .inputs import Columns, read_documents
    from .meter import Meter
    from .skipped import Skipped
    from .sources import as_now
    from .totals import Totals

    way = Way(tuple(args.chunk_tokens or ()), args.prompt_name, args.prompt, args.normalize, args.long_text)
    columns, skipped = Columns(args.text_field, args.id_field), Skipped(args.skip_errors)
    shown = not args.quiet and sys.stderr is not None and sys.stderr.isatty()
    if journal.count and not args.quiet:
        note(f"continuing an interrupted run, {counted(journal.count, 'group')} of documents done")
    with Meter(shown, sum(source.size for source in sources)) as meter:
        embed_all(encoder, way, read_documents(sources, columns, skipped), journal, meter)
    if inputs_fingerprint(as_now(sources)) != inputs_fingerprint(sources):
        raise InputError("the inputs changed while they were read; repeat the command with --overwrite")
    return Totals.of(journal.shards(vectors=False), skipped)


def _about(args: argparse.Namespace, encoder: Encoder) -> dict[str, Any]:
    """What was asked for, as far as it tells what the output holds."""
    return {
        "output": str(args.output),
        "format": args.format,
        "model": args.model,
        "dimension": encoder.get_embedding_dimension(),
        "precision": args.precision,
        "chunk_tokens": args.chunk_tokens,
        "max_seq_length": encoder.max_seq_length,
        "long_text": encoder.long_text,
    }


def _summary(totals: Totals, encoder: Encoder, output: Path) -> str:
    text = f"{output}: {counted(totals.vectors, 'vector')} of {counted(totals.documents, 'document')}"
    done = "cut there" if encoder.long_text == "truncate" else "in overlapping windows"
    longer = f"; {totals.long_documents:,} longer than the model's {encoder.max_seq_length} tokens, {done}"
    return text + longer if totals.long_documents else text
