"""Reading and sampling the sets of documents with questions."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from benchmarks import beir
from benchmarks.long import data
from hypothesis import given
from hypothesis import strategies as st

from .conftest import write_lines


def test_cuad(cuad: Path) -> None:
    contracts = data.load_cuad(cuad)
    assert contracts.titles == ("ACME c0 Supply", "ACME c1 Supply", "ACME c2 Supply")
    first, second = contracts.questions
    assert (first.text, first.document) == ("How long does it run?", 0)
    assert answers(contracts, first) == ["It runs for three years."]
    assert answers(contracts, second) == ["may terminate", "notice\u2028in writing"]


def test_chunking_eval_keeps_line_ends(chunking_eval: Path) -> None:
    corpora = data.load_chunking_eval(chunking_eval)
    assert corpora.titles == ("", "")
    assert "\r\n" in corpora.documents[1]
    assert [answers(corpora, question) for question in corpora.questions] == [
        ["He pays the premium himself."],
        ["Bring cake."],
    ]


def answers(passages: data.Passages, question: data.Question) -> list[str]:
    return [passages.documents[question.document][start:end] for start, end in question.spans]


def test_sampled_questions_stay_with_their_documents(cuad: Path) -> None:
    contracts = data.load_cuad(cuad)
    assert data.sample_passages(contracts, None, 0) is contracts
    assert data.sample_passages(contracts, 99, 0) is contracts
    seen = set()
    for seed in range(20):
        some = data.sample_passages(contracts, 2, seed)
        assert some == data.sample_passages(contracts, 2, seed)
        assert len(some.documents) == len(some.titles) == 2
        seen.add(some.titles)
        for question in some.questions:
            (original,) = [one for one in contracts.questions if one.text == question.text]
            assert some.documents[question.document] == contracts.documents[original.document]
            assert answers(some, question) == answers(contracts, original)
    assert len(seen) == 3


def test_sampled_retrieval_keeps_what_is_judged() -> None:
    documents = {f"d{number}": str(number) for number in range(50)}
    whole = beir.RetrievalSet(documents, {"q": "?"}, {"q": {"d7": 1, "d40": 0}})
    some = data.sample_retrieval(whole, 10, 0)
    assert len(some.documents) == 10
    assert {"d7", "d40"} <= set(some.documents)
    assert list(some.documents) == [key for key in documents if key in some.documents]
    assert set(data.sample_retrieval(whole, 1, 0).documents) == {"d7", "d40"}
    assert data.sample_retrieval(whole, None, 0) is whole


spans = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 10)).map(lambda pair: (pair[0], sum(pair))), max_size=8)


@given(spans)
def test_merged_spans_hold_the_same_places_once(given_spans: list[tuple[int, int]]) -> None:
    result = data.merged(given_spans)
    places = [place for start, end in result for place in range(start, end)]
    assert places == sorted({place for start, end in given_spans for place in range(start, end)})
    assert all(end < start for (_, end), (start, _) in pairwise(result))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"_id": "q", "doc_id": "c9", "text": "?", "spans": [[0, 1]]}, "about 'c9', which is not among"),
        ({"_id": "q", "doc_id": "c0", "text": "?", "spans": [[0, 99999]]}, "'q' has spans"),
        ({"_id": "q", "doc_id": "c0", "text": "?", "spans": [[3, 3]]}, "'q' has spans"),
        ({"_id": "q", "doc_id": "c0", "text": "?", "spans": []}, "'q' has spans"),
        ({"_id": "q", "doc_id": "c0", "text": "?", "spans": ["ab"]}, "'q' has spans"),
        ({"_id": "q", "doc_id": "c0", "text": "?"}, "lacks the field 'spans'"),
    ],
)
def test_questions_that_do_not_fit_are_named(cuad: Path, record: dict[str, object], message: str) -> None:
    write_lines(cuad / "queries.jsonl", [record])
    with pytest.raises(beir.DataError, match=message):
        data.load_cuad(cuad)


def test_folders_that_are_no_such_set(tmp_path: Path, cuad: Path) -> None:
    with pytest.raises(beir.DataError, match=r"docs\.jsonl is missing"):
        data.load_cuad(tmp_path)
    with pytest.raises(beir.DataError, match="corpora is missing"):
        data.load_chunking_eval(tmp_path)
    (cuad / "queries.jsonl").write_text("")
    with pytest.raises(beir.DataError, match="no questions"):
        data.load_cuad(cuad)
    write_lines(cuad / "docs.jsonl", [{"_id": "c0"}])
    with pytest.raises(beir.DataError, match="lacks the field 'text'"):
        data.load_cuad(cuad)
