"""Saving a model that was changed inside: adapters are merged, layers, taps and extensions are remembered."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from tests.checkpoint.folders import update
from tests.checkpoint.test_adapter import ADAPTERS, SMALL, adapted
from tests.models.harness import save, texts_of
from transformers import AutoModel, BertConfig, BertModel, LlamaConfig, LlamaModel, NomicBertConfig, NomicBertModel

from longspan import CheckpointError, Encoder, InputError
from longspan.checkpoint.extras import FILE

TEXTS = texts_of((0, 1, 5, 20))
LONG = texts_of((1, 50, 90))
FORMATS: Any = ("auto", "bfloat16", "int8")
MODELS: dict[str, Any] = {
    "bert": lambda: BertModel(BertConfig(**{**SMALL, "num_hidden_layers": 3})),
    "llama": lambda: LlamaModel(LlamaConfig(**{**SMALL, "num_hidden_layers": 3})),
    "nomic": lambda: NomicBertModel(NomicBertConfig(**SMALL)),
}


def round_trip(encoder: Encoder, folder: Path, **options: Any) -> Encoder:
    """The encoder that the saved folder makes, which gives the same bits."""
    encoder.save(folder)
    again = Encoder(folder, **options)
    for texts in (TEXTS, LONG):
        assert again.encode(texts).tobytes() == encoder.encode(texts).tobytes()
    assert again.max_seq_length == encoder.max_seq_length
    return again


# --- adapters --------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
@pytest.mark.parametrize("name", ADAPTERS)
def test_merged_adapters(tmp_path: Path, name: str) -> None:
    """The new folder is a model of its own, for transformers too."""
    base, adapter = adapted(tmp_path, name)
    round_trip(Encoder(base, adapter=adapter, pooling="mean"), tmp_path / "saved")
    shutil.rmtree(base)
    shutil.rmtree(adapter)
    ours = Encoder(tmp_path / "saved", long_text="truncate").encode(TEXTS)
    theirs = SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(ours[1:], theirs[1:], atol=5e-6)


@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
@pytest.mark.parametrize("weights", FORMATS)
def test_a_folder_that_is_an_adapter(tmp_path: Path, weights: Any) -> None:
    """It gets the config and the tokenizer that lay beside the base, and is no adapter any more."""
    base, adapter = adapted(tmp_path, "plain")
    round_trip(Encoder(adapter, weights=weights), tmp_path / "saved")
    assert not list((tmp_path / "saved").glob("adapter_*"))
    assert {"config.json", "tokenizer.json"} <= {path.name for path in (tmp_path / "saved").iterdir()}
    shutil.rmtree(base)
    round_trip(Encoder(tmp_path / "saved"), tmp_path / "again")


@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
def test_merged_weights_keep_what_nobody_uses(tmp_path: Path) -> None:
    base, adapter = adapted(tmp_path, "of a language model")
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(base / "model.safetensors").items()}
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    round_trip(Encoder(base, adapter=adapter), tmp_path / "saved")
    written = load_file(tmp_path / "saved" / "model.safetensors")
    assert set(written) == set(tensors)
    types = {name: tensor.dtype for name, tensor in written.items()}
    assert types["model.layers.0.self_attn.q_proj.weight"] == torch.float32
    assert types["model.layers.0.self_attn.k_proj.weight"] == types["lm_head.weight"] == torch.bfloat16
    AutoModel.from_pretrained(str(tmp_path / "saved"))


# --- what only Longspan knows ----------------------------------------------------------------------------------------

INSIDE: list[tuple[str, dict[str, Any]]] = [
    ("bert", {"layers": 2}),
    ("bert", {"tap": -2}),
    ("bert", {"tap": 0, "weights": "bfloat16"}),
    ("llama", {"layers": 1, "weights": "int8"}),
    ("llama", {"tap": 2, "weights": "bfloat16"}),
    ("bert", {"extend": "grouped", "max_seq_length": 100}),
    ("bert", {"extend": "interpolate", "max_seq_length": 100}),
    ("bert", {"extend": "interpolate", "weights": "bfloat16"}),
    ("bert", {"extend": "interpolate", "max_seq_length": 100, "weights": "int8", "layers": 1}),
    ("nomic", {"extend": "ntk"}),
    ("nomic", {"extend": "self_extend", "max_seq_length": 100, "tap": -1, "weights": "int8"}),
]


@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
@pytest.mark.parametrize(("name", "options"), INSIDE)
def test_layers_taps_and_extensions(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    source = save(tmp_path / "source", MODELS[name]())
    encoder = Encoder(source, **options)
    again = round_trip(encoder, tmp_path / "saved")
    assert (
        encoder.encode(LONG).tobytes() != Encoder(source, weights=options.get("weights", "auto")).encode(LONG).tobytes()
    )
    round_trip(again, tmp_path / "again")
    assert "Only Longspan" in (tmp_path / "again" / "README.md").read_text()


@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
def test_arguments_outweigh_what_was_saved(tmp_path: Path) -> None:
    source = save(tmp_path / "source", MODELS["bert"]())
    (source / "README.md").write_text("---\nlicense: mit\n---\nAbout it.\n")
    Encoder(source, layers=2, extend="grouped", max_seq_length=100).save(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / FILE).read_text()) == {
        "format": 3,
        "layers": 2,
        "extend": {"method": "grouped", "max_seq_length": 100},
        "long_text": "window",
        "ranges": {},
    }
    words = (tmp_path / "saved" / "README.md").read_text()
    assert words.startswith(
        "---\nlicense: mit\n---\n> **Only Longspan gives this folder's vectors.** `longspan.json` says"
    )
    for given in ({"tap": -1}, {"layers": 1}, {"extend": "recurrent"}, {"extend": "grouped", "max_seq_length": 80}):
        options: dict[str, Any] = {"extend": "grouped", "max_seq_length": 100, **given}
        options |= {} if "extend" not in given or "max_seq_length" in given else {"max_seq_length": None}
        options |= {} if "tap" in given else {"layers": 2, **given}
        ours, expected = Encoder(tmp_path / "saved", **given), Encoder(source, **options)
        assert ours.encode(LONG).tobytes() == expected.encode(LONG).tobytes(), given
    whole = Encoder(tmp_path / "saved", layers=3)
    assert (
        whole.encode(TEXTS).tobytes() == Encoder(source, extend="grouped", max_seq_length=100).encode(TEXTS).tobytes()
    )


@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
def test_a_notice_goes_with_its_reason(tmp_path: Path) -> None:
    source = save(tmp_path / "source", MODELS["bert"]())
    (source / "README.md").write_text("About it.\n")
    Encoder(source, tap=-1).save(tmp_path / "tap")
    Encoder(tmp_path / "tap", weights="int8").save(tmp_path / "narrow")
    words = (tmp_path / "narrow" / "README.md").read_text()
    assert words.startswith("> **Only Longspan reads this folder.**")
    assert words.count("Only Longspan") == 1
    assert words.endswith("\nAbout it.\n")


def test_more_layers_than_panels_hold(tmp_path: Path) -> None:
    Encoder(save(tmp_path / "source", MODELS["bert"]()), layers=1, weights="int8").save(tmp_path / "saved")
    with pytest.raises(CheckpointError, match=r"longspan\.safetensors has no tensor 'encoder\.layer\.1"):
        Encoder(tmp_path / "saved", layers=2)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"layers": 0}, "field 'layers' is 0, expected a positive integer"),
        ({"layers": 4}, "layers is 4, expected 1 to the model's 3"),
        ({"tap": "1"}, "field 'tap' is '1', expected an integer"),
        ({"tap": 9}, "tap is 9, expected -4 to the model's 3 layers"),
        ({"tap": 1, "layers": 1}, "field 'tap' stands beside 'layers'"),
        ({"extend": "ntk"}, "field 'extend' is 'ntk', expected an object"),
        ({"extend": {"max_seq_length": 9}}, "field 'extend.method' is missing"),
        ({"extend": {"method": "magic"}}, "extend is 'magic', expected one of"),
        ({"extend": {"method": "ntk"}}, "extend='ntk' does not fit the positions of bert"),
        ({"extend": {"method": "grouped", "max_seq_length": -1}}, "field 'extend.max_seq_length' is -1"),
    ],
)
def test_damage(tmp_path: Path, sections: dict[str, Any], message: str) -> None:
    folder = save(tmp_path, MODELS["bert"]())
    update(folder / FILE, format=3, **sections)
    with pytest.raises(CheckpointError, match=rf"longspan\.json: .*{message}"):
        Encoder(folder)


def test_transformers_runs_models_as_they_are(tmp_path: Path) -> None:
    Encoder(save(tmp_path / "source", MODELS["bert"]()), tap=-1).save(tmp_path / "saved")
    with pytest.raises(InputError, match="runs a model as it is"):
        Encoder(tmp_path / "saved", backend="transformers")


@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
def test_a_module_that_is_an_adapter(tmp_path: Path) -> None:
    """In a folder of sentence-transformers, with the transformer in one of its own."""
    base, adapter = adapted(tmp_path, "plain")
    source = tmp_path / "source"
    source.mkdir()
    shutil.copytree(adapter, source / "0_Transformer")
    for path in base.glob("tokenizer*"):
        shutil.copy(path, source / "0_Transformer")
    (source / "0_Transformer" / "sentence_bert_config.json").write_text('{"max_seq_length": 12}')
    (source / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True}
    (source / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    modules = [
        {"idx": 0, "name": "0", "path": "0_Transformer", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (source / "modules.json").write_text(json.dumps(modules))
    round_trip(Encoder(source, max_seq_length=9), tmp_path / "saved")
    shutil.rmtree(base)
    assert not list((tmp_path / "saved").rglob("adapter_*"))
    theirs = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert theirs.max_seq_length == 9
    ours = Encoder(tmp_path / "saved", long_text="truncate").encode(TEXTS)
    np.testing.assert_allclose(ours[1:], theirs.encode(TEXTS)[1:], atol=5e-6)
