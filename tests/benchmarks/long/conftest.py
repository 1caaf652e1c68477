"""Tiny sets of the three kinds that `python -m benchmarks long` takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

CLAUSES = (
    "This agreement is made between Acme Corporation and the City of Berlin. It runs for three years.",
    "The supplier shall insure the goods against fire. He pays the premium himself.",
    "Either party may terminate on ninety days' notice\u2028in writing. Disputes are settled in Hamburg.",
)


def write_lines(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """A JSONL file; characters such as U+2028 stay as they are."""
    path.write_text("\n".join(json.dumps(record, ensure_ascii=False) for record in records), encoding="utf-8")


def question(name: str, document: str, text: str, whole: str, *answers: str) -> dict[str, Any]:
    """A question whose answers are the places where these strings stand."""
    spans = [[whole.index(answer), whole.index(answer) + len(answer)] for answer in answers]
    return {"_id": name, "doc_id": document, "text": text, "spans": spans}


@pytest.fixture
def cuad(tmp_path: Path) -> Path:
    """Three contracts, two of them with questions."""
    folder = tmp_path / "cuad"
    folder.mkdir()
    contracts = {f"c{number}": "\n\n".join(CLAUSES[number:] + CLAUSES[:number]) for number in range(3)}
    records = [{"_id": key, "title": f"ACME_{key}__Supply", "text": text} for key, text in contracts.items()]
    write_lines(folder / "docs.jsonl", records)
    asked = [
        question("q0", "c0", "How long does it run?", contracts["c0"], "It runs for three years."),
        question("q1", "c2", "How is it terminated?", contracts["c2"], "may terminate", "notice\u2028in writing"),
    ]
    write_lines(folder / "queries.jsonl", asked)
    return folder


@pytest.fixture
def chunking_eval(tmp_path: Path) -> Path:
    """Two corpora with one question each; one has Windows line ends."""
    folder = tmp_path / "chunking"
    (folder / "corpora").mkdir(parents=True)
    texts = {"law": "\n\n".join(CLAUSES), "mail": "Dear all,\r\nthe meeting is moved to noon.\r\nBring cake."}
    for name, text in texts.items():
        (folder / "corpora" / f"{name}.md").write_bytes(text.encode())
    asked = [
        question("q0", "law", "Who pays the premium?", texts["law"], "He pays the premium himself."),
        question("q1", "mail", "What shall I bring?", texts["mail"], "Bring cake."),
    ]
    write_lines(folder / "queries.jsonl", asked)
    return folder


@pytest.fixture
def scifact(tmp_path: Path) -> Path:
    """Three documents, two queries."""
    folder = tmp_path / "scifact"
    (folder / "qrels").mkdir(parents=True)
    records = [{"_id": f"d{number}", "title": f"Clause {number}", "text": text} for number, text in enumerate(CLAUSES)]
    write_lines(folder / "corpus.jsonl", records)
    asked = [{"_id": "q0", "text": "insurance against fire"}, {"_id": "q1", "text": "Berlin"}]
    write_lines(folder / "queries.jsonl", asked)
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td1\t1\nq1\td0\t1\n")
    return folder
