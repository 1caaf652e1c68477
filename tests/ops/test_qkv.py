"""What `qkv` does after its projection: norms, rotary positions, scales by position.

The outputs are read through attention with windows that let each token see itself only (its value comes out), and
whole, where queries and keys decide.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from longspan.program.instructions import HeadNorm
from longspan.program.rope import DynamicNtk, Frequencies, PositionScale, Rope, inverse_frequencies

from .harness import Case, batch_of, every_tier
from .test_attention import block

SEGMENTS = [[], [0], [1], [0, 5, 0], [1, 2, 3, 17, 64, 65, 129], [33, 300]]
SHAPES = [(1, 1, 8), (4, 2, 24), (3, 1, 40), (2, 2, 64), (2, 1, 128)]


def rope(size: int, **more: Any) -> Rope:
    """Positions of base 100, so that short segments turn far."""
    return Rope(size, Frequencies(inverse_frequencies(100.0, size)), **more)


def check(isa: str, heads: int, kv_heads: int, size: int, norms: dict[str, int] | None = None, **more: Any) -> None:
    """`norms` are random weights by field and width."""
    case = Case(size)
    width = 40
    columns = (heads + 2 * kv_heads) * size
    weights = {name: case.weight(name, extent) for name, extent in (norms or {}).items()}
    weight, bias = case.weight("w", columns, width), case.weight("b", columns)
    qkv, attention = block(case.rows("x", width, scale=2.0), weight, bias, heads, kv_heads, size)
    qkv = type(qkv)(**{name: getattr(qkv, name) for name in qkv.__dataclass_fields__} | weights | more)
    case.check(qkv, attention, outputs=[attention.out], batches=[batch_of(lengths) for lengths in SEGMENTS], isa=isa)


@every_tier
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(("heads", "kv_heads", "size"), SHAPES)
def test_rope(isa: str, heads: int, kv_heads: int, size: int, interleaved: bool) -> None:
    check(isa, heads, kv_heads, size, rope=rope(size, interleaved=interleaved))


@every_tier
@pytest.mark.parametrize("turned", [2, 6, 20, 24])
def test_partial_rope(isa: str, turned: int) -> None:
    check(isa, 4, 2, 24, rope=rope(turned))


@every_tier
def test_rope_by_length(isa: str) -> None:
    """Segments of one batch have different frequencies."""
    check(isa, 2, 2, 32, rope=rope(32, long=Frequencies(inverse_frequencies(7.0, 32), 1.3), original=16))
    check(isa, 2, 2, 32, rope=rope(32, long=DynamicNtk(100.0, 2.0, 16), original=16))


@every_tier
@pytest.mark.parametrize("kind", ["rms", "layer"])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("values", [False, True])
@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(4, 2, 24), (3, 3, 64)])
def test_head_norms(isa: str, heads: int, kv_heads: int, size: int, values: bool, whole: bool, kind: Any) -> None:
    norm = HeadNorm(kind=kind, eps=1e-5, weight_offset=1.0, whole=whole, values=values)
    norms = {"q_norm": size * (heads if whole else 1), "k_norm": size * (kv_heads if whole else 1)}
    check(isa, heads, kv_heads, size, norms, norm=norm, rope=rope(size))


@every_tier
def test_head_norm_with_biases(isa: str) -> None:
    norms = {"q_norm": 48, "k_norm": 48, "q_norm_bias": 48, "k_norm_bias": 48}
    check(isa, 2, 2, 24, norms, norm=HeadNorm(kind="layer", eps=1e-5, whole=True))


@every_tier
def test_queries_scaled_by_position(isa: str) -> None:
    check(isa, 4, 2, 24, rope=rope(24), q_scale=PositionScale(0.5, 16))


def test_frequencies_have_the_roundings_of_torch() -> None:
    torch = pytest.importorskip("torch")
    for base in (10000.0, 160000.0, 500000.0, 1e6):
        for size in (32, 64, 128, 256):
            theirs = 1.0 / (base ** (torch.arange(0, size, 2, dtype=torch.int64).float() / size))
            np.testing.assert_array_max_ulp(np.array(inverse_frequencies(base, size), np.float32), theirs.numpy(), 2)
