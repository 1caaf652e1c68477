"""The benchmark's texts, and the reader of retrieval sets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks import beir, texts


@pytest.fixture(scope="module")
def paragraphs() -> list[str]:
    pytest.importorskip("pydoc_data.topics", reason="this Python lacks the longer texts")
    return texts.paragraphs()


def test_texts_are_distinct_and_mixed(paragraphs: list[str]) -> None:
    words = [len(text.split()) for text in paragraphs]
    assert len(paragraphs) == len(set(paragraphs)) == texts.COUNT == 1000
    assert 30 < sum(words) / len(words) < 45
    assert min(words) < 8
    assert max(words) > 120
    assert not any("\n" in text for text in paragraphs)


def test_texts_are_the_same_again_and_a_few_are_as_mixed_as_all(paragraphs: list[str]) -> None:
    few = texts.paragraphs(100)
    assert few == paragraphs[:100]
    assert 25 < sum(len(text.split()) for text in few) / len(few) < 50


@pytest.mark.parametrize("count", [0, -1, texts.COUNT + 1])
def test_texts_that_cannot_be_had(count: int) -> None:
    with pytest.raises(texts.TextsError, match="between 1 and 1000"):
        texts.paragraphs(count)


def write_set(folder: Path, queries: str = "queries.jsonl") -> None:
    """Three documents and two queries, one of them without a judgement."""
    documents = [
        {"_id": "d1", "title": "Title", "text": "one\u2028still one"},
        {"_id": "d2", "title": "", "text": "two"},
        {"_id": "d3", "text": "three"},
    ]
    lines = [json.dumps(document, ensure_ascii=False) for document in documents]
    (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    asked = [{"_id": "q1", "text": "first?"}, {"_id": "q2", "text": "unjudged"}]
    (folder / queries).write_text("\n".join(map(json.dumps, asked)), encoding="utf-8")
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td3\t1\n")


@pytest.mark.parametrize("queries", ["queries.jsonl", "queries_test.jsonl"])
def test_beir_folder(tmp_path: Path, queries: str) -> None:
    write_set(tmp_path, queries)
    data = beir.load(tmp_path)
    assert data.documents == {"d1": "Title one\u2028still one", "d2": "two", "d3": "three"}
    assert data.queries == {"q1": "first?"}
    assert data.qrels == {"q1": {"d1": 2, "d3": 1}}


def test_beir_folder_problems_name_the_place(tmp_path: Path) -> None:
    with pytest.raises(beir.DataError, match=r"corpus\.jsonl is missing"):
        beir.load(tmp_path)
    write_set(tmp_path)
    with pytest.raises(beir.DataError, match=r"qrels/train\.tsv is missing"):
        beir.load(tmp_path, "train")
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d1", "text": "one"}\n{oops\n')
    with pytest.raises(beir.DataError, match=r"corpus\.jsonl:2: not JSON"):
        beir.load(tmp_path)
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d1"}\n')
    with pytest.raises(beir.DataError, match="lacks the field 'text'"):
        beir.load(tmp_path)
