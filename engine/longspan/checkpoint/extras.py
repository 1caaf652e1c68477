"""longspan.json: what only Longspan knows of a model. sentence-transformers passes over the file.

{"format": 1, "long_text": "window", "ranges": {"384": {"low": [...], "high": [...], "unit": true}}}

Where weights are in panels (`panels`), which older readers do not know, the format is 2, and "weights" says what they
are: {"format": "int8", "layout": 1}. Where part of the model runs or its positions are extended it is 3, with "layers"
or "tap", and "extend": {"method": "ntk", "max_seq_length": 4096}.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from reprlib import repr as shown
from typing import Any, get_args

import numpy as np

from ..errors import CheckpointError, InputError
from ..pooling.precision import Ranges
from ..text.windows import LongText
from ..weights import Format
from .config import Fields, json_kind
from .panels import LAYOUT, PACKED_TYPES

FILE = "longspan.json"
FORMAT = 3
SECTIONS = ("format", "weights", "layers", "tap", "extend", "long_text", "ranges")


@dataclass(frozen=True, slots=True)
class Inside:
    """What was chosen of a model's inside, by the names of `Encoder`'s arguments; None leaves it as it is.

    Attributes:
        layers, tap, extend: as there.
        extend_to: `max_seq_length` beside `extend`.
    """

    layers: int | None = None
    tap: int | None = None
    extend: str | None = None
    extend_to: int | None = None

    def over(self, other: Inside) -> Inside:
        """This, and where it says nothing of layers or of positions what another says."""
        layered = other if self.layers is None and self.tap is None else self
        extended = other if self.extend is None else self
        return Inside(layered.layers, layered.tap, extended.extend, extended.extend_to)

    def as_json(self) -> dict[str, Any]:
        """The sections of the file that say so."""
        said: dict[str, Any] = {"layers": self.layers, "tap": self.tap}
        if self.extend is not None:
            said["extend"] = {"method": self.extend, "max_seq_length": self.extend_to}
        return {name: value for name, value in said.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Extras:
    """What the file says.

    Attributes:
        long_text: what becomes of texts that are too long; None where the file does not say.
        ranges: of int8 and uint8, by the vectors' dimension.
        weights: the format of weights in panels; None where there are none.
        inside: what was chosen of the model.
        path: the file, for messages.
    """

    long_text: str | None = None
    ranges: Mapping[int, Ranges] = field(default_factory=dict)
    weights: Format | None = None
    inside: Inside = Inside()
    path: Path | None = field(default=None, compare=False)

    def as_json(self) -> dict[str, Any]:
        """The object that `read_extras` reads."""
        ranges = {
            str(dimension): {"low": mine.low.tolist(), "high": mine.high.tolist()}
            | ({} if mine.unit is None else {"unit": mine.unit})
            for dimension, mine in self.ranges.items()
        }
        weights = {} if self.weights is None else {"weights": {"format": self.weights, "layout": LAYOUT}}
        inside = self.inside.as_json()
        version = 3 if inside else 2 if weights else 1
        return {"format": version, **weights, **inside, "long_text": self.long_text, "ranges": ranges}


def read_extras(folder: Path) -> Extras:
    """Reads the file of a model folder; nothing where there is none.

    Raises:
        CheckpointError: it is damaged, or written by a newer version; the message names file and field.
    """
    if not (folder / FILE).exists():
        return Extras()
    fields = Fields.read(folder / FILE)
    version = fields.integer("format")
    if version > FORMAT:
        raise fields.wrong("format", f"is {version}, and this version of Longspan reads up to {FORMAT}; upgrade it")
    for name in fields.values:
        if name not in SECTIONS:
            raise fields.wrong(name, f"is not known; known are {', '.join(SECTIONS)}")
    table = fields.table("ranges")
    ranges = dict(_ranges(table, name) for name in table.values)
    return Extras(_long_text(fields), ranges, _weights(fields), _inside(fields), fields.path)


def _inside(fields: Fields) -> Inside:
    tap, extend = fields.values.get("tap"), fields.table("extend")
    if tap is not None and (not isinstance(tap, int) or isinstance(tap, bool)):
        raise fields.wrong("tap", f"is {shown(tap)}, expected an integer")
    if tap is not None and fields.values.get("layers") is not None:
        raise fields.wrong("tap", "stands beside 'layers'; one of them counts")
    method = extend.text("method") if extend.values else None
    return Inside(fields.optional_integer("layers"), tap, method, extend.optional_integer("max_seq_length"))


def _weights(fields: Fields) -> Format | None:
    table = fields.table("weights")
    if not table.values:
        return None
    name = table.optional_text("format")
    known = next((known for known in PACKED_TYPES if known == name), None)
    if known is None:
        raise table.wrong("format", f"is {name!r}; known are {', '.join(PACKED_TYPES)}")
    if table.integer("layout") != LAYOUT:
        raise table.wrong("layout", f"is not {LAYOUT}, which this version of Longspan reads; upgrade it")
    return known


def _long_text(fields: Fields) -> str | None:
    name = fields.optional_text("long_text")
    if name is not None and name not in get_args(LongText):
        raise fields.wrong("long_text", f"is '{name}'; known are {', '.join(get_args(LongText))}")
    return name


def _ranges(table: Fields, name: str) -> tuple[int, Ranges]:
    if not (name.isascii() and name.isdigit() and int(name) > 0):
        raise table.wrong(name, "must be named by a dimension, a positive integer")
    ends = table.table(name)
    try:
        unit = ends.flag("unit", default=False) if "unit" in ends.values else None
        return int(name), Ranges(_numbers(ends, "low"), _numbers(ends, "high"), unit).checked(int(name))
    except InputError as error:
        raise CheckpointError(f"{table.path}: '{table.prefix}{name}' cannot be used: {error}.") from error


def _numbers(ends: Fields, name: str) -> Any:
    values = ends.values.get(name)
    if not isinstance(values, list):
        raise ends.wrong(name, f"must be a list of numbers, not {json_kind(values)}")
    kinds = sorted({json_kind(value) for value in values} - {"a number"})
    if kinds:
        raise ends.wrong(name, f"must be a list of numbers, but holds {kinds[0]}")
    try:
        with np.errstate(over="ignore"):  # infinity, which is complained of later
            return np.array(values, np.float64).astype(np.float32)
    except OverflowError:
        raise ends.wrong(name, "holds an integer that no float can hold") from None
