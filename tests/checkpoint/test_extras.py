"""longspan.json: what is read, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.checkpoint.extras import FILE, Extras, read_extras
from longspan.errors import CheckpointError
from longspan.pooling.precision import Ranges

GOOD = {"format": 1, "long_text": "truncate", "ranges": {"2": {"low": [-1, 0.5], "high": [1, 0.5]}}}


def test_nothing_there(tmp_path: Path) -> None:
    assert read_extras(tmp_path) == Extras(None, {})


def test_written_by_hand(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(json.dumps(GOOD))
    extras = read_extras(tmp_path)
    assert extras.long_text == "truncate"
    assert list(extras.ranges) == [2]
    assert extras.ranges[2].low.tolist() == [-1, 0.5]
    assert extras.ranges[2].high.tolist() == [1, 0.5]
    (tmp_path / FILE).write_text('{"format": 1}')
    assert read_extras(tmp_path) == Extras(None, {})


@given(values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=9))
@settings(max_examples=50, deadline=None)
def test_every_float_comes_back(tmp_path_factory: pytest.TempPathFactory, values: list[float]) -> None:
    folder = tmp_path_factory.mktemp("extras")
    low = np.array(values, np.float32)
    extras = Extras("window", {len(values): Ranges(low, np.maximum(low, np.float32(0.1)))})
    (folder / FILE).write_text(json.dumps(extras.as_json()))
    found = read_extras(folder)
    assert found.long_text == "window"
    for name in ("low", "high"):
        mine, theirs = (getattr(item.ranges[len(values)], name) for item in (extras, found))
        np.testing.assert_array_equal(mine, theirs)
        assert theirs.dtype == np.float32


def ranges(low: Any = (0, 0), high: Any = (1, 1), name: str = "2") -> dict[str, Any]:
    return {"ranges": {name: {"low": low, "high": high}}}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": None}, "'format' is missing"),
        ({"format": 0}, "'format' is 0, expected a positive integer"),
        ({"format": "1"}, "'format' is '1', expected a positive integer"),
        ({"format": 4}, "'format' is 4, and this version of Longspan reads up to 3; upgrade it"),
        ({"windows": {}}, "'windows' is not known; known are format, weights, layers, tap, extend, long_text, ranges"),
        ({"weights": "int8"}, "'weights' is 'int8', expected an object"),
        ({"weights": {"format": "int5", "layout": 1}}, "'weights.format' is 'int5'; known are bfloat16, int8"),
        ({"weights": {"layout": 1}}, "'weights.format' is None; known are bfloat16, int8"),
        ({"weights": {"format": "int8"}}, "'weights.layout' is missing"),
        (
            {"weights": {"format": "int8", "layout": 2}},
            "'weights.layout' is not 1, which this version of Longspan reads",
        ),
        ({"long_text": 7}, "'long_text' is 7, expected a string"),
        ({"long_text": "cut"}, "'long_text' is 'cut'; known are window, truncate, error"),
        ({"ranges": []}, "'ranges' is [], expected an object"),
        ({"ranges": {"2": 7}}, "'ranges.2' is 7, expected an object"),
        (ranges(name="-2"), "'ranges.-2' must be named by a dimension"),
        (ranges(name="two"), "'ranges.two' must be named by a dimension"),
        (ranges(name="0"), "'ranges.0' must be named by a dimension"),
        (ranges(low="00"), "'ranges.2.low' must be a list of numbers, not a string"),
        (ranges(high=None), "'ranges.2.high' must be a list of numbers, not null"),
        (ranges(high=[1, None]), "'ranges.2.high' must be a list of numbers, but holds null"),
        (ranges(high=[1, True]), "'ranges.2.high' must be a list of numbers, but holds a boolean"),
        (ranges(high=[1, [1]]), "'ranges.2.high' must be a list of numbers, but holds a list"),
        (ranges(high=[1, 10**400]), "'ranges.2.high' holds an integer that no float can hold"),
        (ranges(high=[1, 1e300]), "'ranges.2' cannot be used: ranges.high is not finite"),
        (ranges(high=[1, float("nan")]), "'ranges.2' cannot be used: ranges.high is not finite"),
        (ranges(high=[1, 1, 1]), "'ranges.2' cannot be used: ranges.high has the shape [3], expected [2]"),
        (ranges(low=[0, 2]), "'ranges.2' cannot be used: ranges.high is below ranges.low at component 1"),
    ],
)
def test_bad_field_is_named(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    (tmp_path / FILE).write_text(json.dumps({**GOOD, **fields}))
    with pytest.raises(CheckpointError) as caught:
        read_extras(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / FILE}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "7", "[]", "\xff", '{"format": 1'])
def test_unreadable(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=FILE):
        read_extras(tmp_path)
