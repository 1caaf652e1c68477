"""The C++ executor is there, and its tier can be lowered; other tests skip where it is not, and would hide it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from longspan import Encoder, InputError, _csrc


def test_the_baseline_tier_is_always_there() -> None:
    assert _csrc.tiers()[0] == "generic"


def test_the_environment_lowers_the_tier(minilm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Encoder(minilm).encode("hello world")
    monkeypatch.setenv("LONGSPAN_ISA", "generic")
    np.testing.assert_allclose(Encoder(minilm).encode("hello world"), expected, atol=1e-5)
    monkeypatch.setenv("LONGSPAN_ISA", "mmx")
    with pytest.raises(InputError, match="'mmx' is not available"):
        Encoder(minilm)
