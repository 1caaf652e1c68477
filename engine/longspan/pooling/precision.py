"""Output precision: float32 vectors as int8, uint8 or bits, with sentence-transformers' meaning of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from .. import _csrc
from ..batch import Float32
from ..checks import one_of
from ..errors import InputError
from ..executors.tiers import wanted_tier

Precision = Literal["float32", "int8", "uint8", "binary", "ubinary"]
Vectors = npt.NDArray[Any]

_LEVELS = 255
_NONE = np.zeros(0, np.float32)


def check_precision(value: str) -> Precision:
    """The precision by name; raises as `one_of`."""
    precision: Precision = one_of(value, get_args(Precision), "precision")
    return precision


@dataclass(frozen=True, slots=True, eq=False)
class Ranges:
    """What int8 and uint8 map to their 256 levels, per component.

    Attributes:
        low, high: [d] float32.
        unit: whether they are of vectors of unit length; None where that is not known.
    """

    low: Float32
    high: Float32
    unit: bool | None = None

    @classmethod
    def of(cls, vectors: Float32, unit: bool | None = None) -> Ranges:
        """The least and greatest value of each component over calibration vectors [n, d].

        Raises:
            InputError: there are fewer than two vectors, or one is not finite.
        """
        if len(vectors) < 2:
            raise InputError(f"calibration needs at least 2 texts, got {len(vectors)}")
        bad = np.flatnonzero(~np.isfinite(vectors).all(1))
        if len(bad):
            raise InputError(f"calibration text {bad[0]} has a vector that is not finite")
        return cls(vectors.min(0), vectors.max(0), unit)

    def checked(self, dimension: int) -> Ranges:
        """The same as float32 arrays.

        Raises:
            InputError: they are not of that dimension, not finite, or a component's high is below its low.
        """
        low, high = np.ascontiguousarray(self.low, np.float32), np.ascontiguousarray(self.high, np.float32)
        for name, values in (("low", low), ("high", high)):
            if values.shape != (dimension,):
                raise InputError(f"ranges.{name} has the shape {list(values.shape)}, expected {[dimension]}")
            if not np.isfinite(values).all():
                raise InputError(f"ranges.{name} is not finite")
        if (high < low).any():
            raise InputError(f"ranges.high is below ranges.low at component {int(np.argmax(high < low))}")
        return Ranges(low, high, self.unit)

    def check_unit(self, unit: bool) -> None:
        """Raise an InputError if they are known to be of other vectors than those of unit length, or than others."""
        if self.unit is not None and self.unit != unit:
            mine, asked = (
                ("unit length", "the checkpoint's own") if self.unit else ("the checkpoint's own", "unit length")
            )
            raise InputError(
                f"the ranges were calibrated for vectors of {mine} and these have {asked}: call "
                f"encoder.calibrate(texts, normalize_embeddings={unit}) first"
            )

    @property
    def step(self) -> Float32:
        """[d] the width of one level; 1 where a component never changes."""
        step = (self.high - self.low) / np.float32(_LEVELS)
        return np.where(step == 0, np.float32(1), step).astype(np.float32)


def empty_vectors(count: int, dimension: int, precision: Precision) -> Vectors:
    """Room for vectors: [count, dimension], or [count, ceil(dimension / 8)] where they are bits."""
    if precision == "float32":
        return np.empty((count, dimension), np.float32)
    dtype = np.int8 if precision in ("int8", "binary") else np.uint8
    return np.empty((count, -(-dimension // 8) if precision in ("binary", "ubinary") else dimension), dtype)


def to_precision(vectors: Float32, precision: Precision, ranges: Ranges | None) -> Vectors:
    """Vectors [n, d] in an output precision.

    int8 and uint8: floor((x - low) / step) clipped to 0 .. 255, minus 128 for int8. ubinary: one bit per component, set
    where x > 0, packed most significant bit first; binary: the same bytes minus 128, as int8.

    Raises:
        InputError: int8 or uint8 without ranges.
    """
    if precision == "float32":
        return vectors
    if precision in ("binary", "ubinary"):
        data = _csrc.quantize(vectors, precision, _NONE, _NONE, wanted_tier())
    elif ranges is None:
        raise InputError(
            f"precision {precision!r} needs ranges for vectors of {vectors.shape[-1]} components: call "
            "encoder.calibrate(texts) with texts like yours first"
        )
    else:
        data = _csrc.quantize(vectors, precision, ranges.low, ranges.step, wanted_tier())
    return data.view(np.int8) if precision in ("int8", "binary") else data


def unpacked_bits(data: Vectors, precision: Precision, dimension: int) -> Float32:
    """The bits of binary or ubinary vectors [n, ceil(d / 8)] as -1 and 1: [n, d]."""
    flip = 0x80 if precision == "binary" else 0
    bits = np.unpackbits(data.view(np.uint8) ^ np.uint8(flip), axis=1, count=dimension)
    return bits.astype(np.float32) * 2 - 1
