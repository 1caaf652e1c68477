"""`longspan verify`."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from longspan import Encoder
from longspan.cli import reference, verify

Run = Callable[..., Any]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sentence-transformers", "transformers"])
def test_agrees(longspan: Run, minilm: Path, name: str) -> None:
    ran = longspan("verify", minilm, "--reference", name, "--json")
    assert ran.code == 0, ran
    report = json.loads(ran.out)
    assert report["ok"]
    assert report["min"] > 0.99999
    assert {row["tokens"] for row in report["lengths"]} >= {"0-16", "17-64", "65-256", "257-512"}
    assert sum(row["texts"] for row in report["lengths"]) == report["texts"]


@pytest.mark.slow
def test_own_texts_and_a_difference(longspan: Run, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "texts.txt").write_text("cat dog\n\nbird fish\r\na b c\n")
    command = ("verify", tiny, "--texts", tmp_path / "texts.txt", "--reference", "transformers")
    ran = longspan(*command)
    assert ran.code == 0
    assert ran.out.splitlines()[3:5] == [
        "tokens  texts  least cosine       mean",
        "0-16        3     1.0000000  1.0000000",
    ]
    assert ran.out.endswith("agrees: no cosine is below 0.9999\n")
    right = reference.transformers
    monkeypatch.setattr(reference, "transformers", lambda *a: right(*a) + np.float32(0.1))
    ran = longspan(*command)
    assert ran.code == 1
    assert ran.out.splitlines()[-1].startswith("DIFFERS: the least cosine, 0.9")
    monkeypatch.setattr(reference, "transformers", lambda *a: right(*a) * np.float32("nan"))
    assert longspan(*command).code == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sentence-transformers", "transformers"])
def test_pooling_and_tail(longspan: Run, tiny: Path, tmp_path: Path, name: str) -> None:
    """Two poolings, a Dense and a LayerNorm."""
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense", "3_LayerNorm": "LayerNorm"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    pooling = {
        "word_embedding_dimension": 16,
        "pooling_mode_max_tokens": True,
        "pooling_mode_weightedmean_tokens": True,
    }
    dense = {
        "in_features": 32,
        "out_features": 8,
        "bias": True,
        "activation_function": "torch.nn.modules.activation.Tanh",
    }
    random = np.random.default_rng(0)
    tensors = {"linear.weight": random.normal(size=(8, 32)), "linear.bias": random.normal(size=8)}
    norms = {"norm.weight": random.normal(size=8), "norm.bias": random.normal(size=8)}
    for at, config, arrays in (
        ("1_Pooling", pooling, {}),
        ("2_Dense", dense, tensors),
        ("3_LayerNorm", {"dimension": 8}, norms),
    ):
        (folder / at).mkdir()
        (folder / at / "config.json").write_text(json.dumps(config))
        if arrays:
            save_file({k: v.astype(np.float32) for k, v in arrays.items()}, folder / at / "model.safetensors")
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 64, "do_lower_case": False}))
    ran = longspan("verify", folder, "--reference", name, "--json")
    assert ran.code == 0, ran
    assert json.loads(ran.out)["min"] > 0.99999


def test_reference_is_missing(longspan: Run, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    error = longspan("verify", tiny).error
    assert error.startswith("the reference sentence-transformers cannot be imported")
    assert error.endswith("pip install sentence-transformers torch")


def test_narrow_weights(longspan: Run, tiny: Path, tmp_path: Path) -> None:
    Encoder(tiny, weights="bfloat16").save(tmp_path / "saved")
    error = longspan("verify", tmp_path / "saved").error
    assert error.endswith("saved is in bfloat16 for Longspan alone: verify the checkpoint that it was made of")


def test_bad_texts(longspan: Run, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "load", lambda name: None)
    (tmp_path / "texts.txt").write_text("\n \n")
    assert longspan("verify", tiny, "--texts", tmp_path / "texts.txt").error.endswith("texts.txt holds no text")
    (tmp_path / "texts.txt").write_bytes(b"a\xff")
    assert "not UTF-8" in longspan("verify", tiny, "--texts", tmp_path / "texts.txt").error
    assert "No such file" in longspan("verify", tiny, "--texts", tmp_path / "absent.txt").error


def test_built_in_texts_cover_the_lengths() -> None:
    texts = verify.built_in_texts(256)
    assert texts[0] == ""
    assert len(texts[-1].split()) == 264
    assert len({len(text.split()) for text in texts}) == len(verify.WORDS) + 2
    assert len(verify.built_in_texts(32768)[-1].split()) == 4104
