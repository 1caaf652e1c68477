"""The workload `texts`: tokens per second on mixed real texts, and the latency of one short query."""

from __future__ import annotations

import json
from collections.abc import Sequence

from .. import peers, runner, texts
from ..batches import Batcher
from ..peers import Source
from .ceilings import operations
from .report import Task
from .setup import Setup

REFERENCE = "sentence-transformers"
QUERY = "How do I read a large file line by line in Python?"  # 15 tokens for a BERT tokenizer


def run(setup: Setup, names: Sequence[str], count: int, max_length: int, latency: bool) -> Task:
    """Everybody in this process, alternately."""
    sample = texts.paragraphs(count)
    lengths = [len(ids) for ids in Batcher(setup.model, max_length).tokenize(sample)]
    source = Source(setup.model, max_length, setup.exports)
    made = (setup.try_to_make(name, lambda name: peers.make(name, source)) for name in names)
    implementations = [implementation for implementation in made if implementation is not None]
    reference = next((peer for peer in implementations if peer.name == REFERENCE), None)
    if reference is None:
        setup.report_unchecked(f"{REFERENCE} does not take part")
    results = runner.measure(
        implementations,
        sample,
        sum(lengths),
        rounds=setup.rounds,
        query=QUERY if latency else None,
        reference=reference.encode(sample) if reference is not None else None,
        report=setup.report,
    )
    config = json.loads((setup.model / "config.json").read_text(encoding="utf-8"))
    title = f"{count:,} texts of {sum(lengths) / count:.0f} tokens on average, at most {max_length}"
    return setup.task(title, results, operations(config, lengths))
