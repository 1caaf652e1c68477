"""The command `long`: late chunking beside chunks embedded alone, on any of three kinds of sets."""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .. import beir, machine
from ..arguments import percentages, positive, positives
from ..model import model_folder
from . import data, plot, report
from .chunked import Setting
from .compare import Row, compare
from .methods import Collection, Plan
from .tasks import DocumentTask, SpanTask

RESULTS = Path(__file__).parents[1] / "results"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks long`."""
    parser.add_argument("--cuad", type=Path, metavar="FOLDER", help="contracts: docs.jsonl and queries.jsonl")
    parser.add_argument("--chunking-eval", type=Path, metavar="FOLDER", help="corpora/*.md and queries.jsonl")
    parser.add_argument("--scifact", type=Path, metavar="FOLDER", help="a retrieval set in BEIR form, any")
    parser.add_argument("--model", metavar="FOLDER", help="model folder (default: the installed model package)")
    parser.add_argument(
        "--chunk-tokens", type=positives, default="64,128,256", metavar="N,N", help="sizes (default: 64,128,256)"
    )
    parser.add_argument(
        "--windows", type=positives, default="256", metavar="N,N", help="tokens seen at a time (default: 256)"
    )
    parser.add_argument(
        "--overlaps", type=percentages, default="25", metavar="P,P", help="percent of a window (default: 25)"
    )
    parser.add_argument("--blends", action="store_true", help="also blends of both kinds of vectors")
    parser.add_argument("--titles", action="store_true", help="also the document's title as context")
    parser.add_argument("--documents", type=positive, metavar="N", help="a sample of each set (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample and the bootstrap (default: 0)")
    parser.add_argument("--resamples", type=positive, default=2000, help="of the bootstrap (default: 2000)")
    parser.add_argument(
        "--output", type=Path, help="the JSON file; tables and plots go beside it (default: in results/)"
    )


def run(options: argparse.Namespace) -> int:
    """The command `long`."""
    collections = list(_collections(options))
    if not collections:
        raise beir.DataError("nothing to measure: name a folder with --cuad, --chunking-eval or --scifact")
    settings = tuple(Setting(window, overlap) for window in options.windows for overlap in options.overlaps)
    plan = Plan(options.chunk_tokens, settings, options.blends, options.titles)
    model = model_folder(options.model)
    description = machine.describe()
    print(machine.title(description), flush=True)
    path: Path = options.output or RESULTS / f"long-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    tables: list[str] = []
    for collection in collections:
        print(f"{collection.name}: {len(collection.documents):,} documents", flush=True)
        mine = _compare(model, collection, plan, options)
        rows += mine
        for task in collection.tasks:
            of_task = [row for row in mine if row.task == task.name]
            tables.append(report.table(task, of_task))
            print(f"\n{tables[-1]}\n", flush=True)
            _plot(of_task, f"{task.name}, {_model_name(options)}", options, path, description)
        _save(path, options, description, collections, rows, tables)
    print(f"written: {path} and {path.with_suffix('.md')}")
    return 0


def _model_name(options: argparse.Namespace) -> str:
    return Path(options.model).name if options.model else "all-MiniLM-L6-v2"


def _compare(model: Path, collection: Collection, plan: Plan, options: argparse.Namespace) -> list[Row]:
    """The rows of one collection; what the encoder does not accept is said in its own words."""
    longspan = importlib.import_module("longspan")
    try:
        for window in (*options.windows, plan.alone_window):  # before anything is computed
            longspan.Encoder(str(model), device="cpu", max_seq_length=window)
        encoder = longspan.Encoder(str(model), device="cpu")
        return compare(encoder, collection, plan, options.seed, options.resamples, _say)
    except longspan.LongspanError as error:
        raise beir.DataError(f"{collection.name}: {error}") from error


def _collections(options: argparse.Namespace) -> Iterator[Collection]:
    """What the given folders hold."""
    count, seed = options.documents, options.seed
    if options.cuad is not None:
        contracts = data.sample_passages(data.load_cuad(options.cuad), count, seed)
        named = tuple(
            data.Question(f"{contracts.titles[asked.document]}: {asked.text}", asked.document, asked.spans)
            for asked in contracts.questions
        )
        tasks = (
            SpanTask("cuad", contracts.questions, within=True),
            SpanTask("cuad, all contracts", named, within=False),
        )
        yield Collection("cuad", contracts.documents, contracts.titles, tasks)
    if options.chunking_eval is not None:
        corpora = data.sample_passages(data.load_chunking_eval(options.chunking_eval), count, seed)
        asked = SpanTask("chunking_eval", corpora.questions, within=False)
        yield Collection("chunking_eval", corpora.documents, corpora.titles, (asked,))
    if options.scifact is not None:
        retrieval = data.sample_retrieval(beir.load(options.scifact), count, seed)
        titles = tuple(retrieval.titles.get(key, "") for key in retrieval.documents)
        found = DocumentTask("scifact", tuple(retrieval.documents), retrieval.queries, retrieval.qrels)
        yield Collection("scifact", tuple(retrieval.documents.values()), titles, (found,))


def _say(line: str) -> None:
    print(f"  {line}", flush=True)


def _plot(
    rows: Sequence[Row], title: str, options: argparse.Namespace, path: Path, description: dict[str, Any]
) -> None:
    name = rows[0].task.replace(", ", "-").replace(" ", "-")
    picture = path.with_name(f"{path.stem}-{name}.png")
    footer = f"seed {options.seed}, windows in tokens / overlap; {description['cpu']}, {description['cores']} cores"
    try:
        plot.differences(rows, title, footer, picture)
    except ImportError as error:
        print(f"no plot: {error}")
    else:
        print(f"written: {picture}")


def _save(
    path: Path,
    options: argparse.Namespace,
    description: dict[str, Any],
    collections: Sequence[Collection],
    rows: Sequence[Row],
    tables: Sequence[str],
) -> None:
    """Writes what is known so far: a long run that is interrupted keeps the sets that it finished."""
    record = {
        "machine": description,
        "model": _model_name(options),
        "seed": options.seed,
        "resamples": options.resamples,
        "documents": {collection.name: len(collection.documents) for collection in collections},
        "questions": {task.name: len(task.questions) for one in collections for task in one.tasks},
        "rows": report.record(rows),
    }
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text("\n\n".join(tables) + "\n", encoding="utf-8")
