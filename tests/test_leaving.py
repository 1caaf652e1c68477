"""Vectors leave once their windows are done, in order, with the bits of all at once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longspan import Encoder, leaving

DOCUMENT = "He drove to the stadium. So sunny outside! " * 60
POOLINGS = (["mean"], ["cls", "max", "mean"], ["lasttoken"], ["weightedmean", "mean_sqrt_len_tokens"])


@pytest.fixture(scope="module", params=POOLINGS, ids="+".join)
def encoder(request: pytest.FixtureRequest, small: Path, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tmp_path_factory.mktemp("pooled") / "model"
    shutil.copytree(small, folder)
    encoder = Encoder(folder, device="cpu", pooling=request.param)
    encoder.max_seq_length = 48
    return encoder


def counted(encoder: Encoder) -> tuple[list[int], Any]:
    """An encoder's executor, and the tokens of what it runs."""
    executor: Any = encoder._pipeline.executor
    ran: list[int] = []
    run_body = executor.run_body

    def run(batch: Any, **options: Any) -> Any:
        ran.append(batch.tokens)
        return run_body(batch, **options)

    executor.run_body = run
    return ran, executor


@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
def test_the_first_leave_before_the_last_are_seen(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = encoder.encode_chunks(DOCUMENT, chunk_tokens=20)
    monkeypatch.setattr(leaving, "PART_TOKENS", 100)
    ran, executor = counted(encoder)
    seen: list[int] = []
    try:
        found = []
        for chunk in encoder.stream([DOCUMENT], chunk_tokens=20):
            seen.append(len(ran))
            found.append(chunk.vector)
    finally:
        del executor.run_body
    assert seen[0] == 1
    assert seen[-1] == len(ran) > 5
    assert len(set(seen)) > 5
    np.testing.assert_array_equal(np.stack(found), expected.vectors)


spans = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 30)).map(lambda pair: (pair[0] * 43, (pair[0] + pair[1]) * 43)),
    max_size=8,
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_spans=spans, part=st.integers(1, 400))
@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
def test_spans_in_any_order(encoder: Encoder, given_spans: list[tuple[int, int]], part: int) -> None:
    """Overlapping ones that run backwards too: none overtakes another."""
    own = [(start, min(end, len(DOCUMENT))) for start, end in given_spans if start < len(DOCUMENT)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leaving, "PART_TOKENS", part)
        found = list(encoder.stream([DOCUMENT, "One more."], spans=[own, [(0, 3)]]))
    expected = encoder.encode_chunks([DOCUMENT, "One more."], spans=[own, [(0, 3)]])
    assert [chunk.span for chunk in found] == [*own, (0, 3)]
    rows = np.concatenate([document.vectors for document in expected])
    np.testing.assert_array_equal(np.stack([chunk.vector for chunk in found]), rows)
