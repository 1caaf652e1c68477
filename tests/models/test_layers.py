"""What is taken of a model's layers: the first few, a tap, a weighted mean."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel

from longspan import Encoder, InputError

from .harness import PREFIX, SUFFIX, VOCABULARY, save, texts_of

TEXTS = texts_of((1, 5, 20))
SMALL = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.15,
}
MODELS = {"bert": (BertModel, BertConfig), "llama": (LlamaModel, LlamaConfig)}


def hidden_states(model: Any, text: str) -> tuple[torch.Tensor, ...]:
    """transformers' own: the embedding, then every layer; the last one through the last norm."""
    ids = torch.tensor([[*PREFIX, *(VOCABULARY.index(word) for word in text.split()), *SUFFIX]])
    with torch.inference_mode():
        states: tuple[torch.Tensor, ...] = model(input_ids=ids, output_hidden_states=True).hidden_states
    return states


def saved(folder: Path, name: str) -> tuple[Path, Any]:
    kind, config = MODELS[name]
    save(folder, kind(config(**SMALL)))
    return folder, kind.from_pretrained(str(folder)).eval()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("tap", [0, 1, 3, -2, -5])
def test_taps(tmp_path: Path, name: str, tap: int) -> None:
    """As transformers' hidden states, of which only the last one is normalised."""
    folder, model = saved(tmp_path, name)
    ours = Encoder(folder, tap=tap).encode(TEXTS, output_value="token_embeddings")
    for mine, text in zip(ours, TEXTS, strict=True):
        np.testing.assert_allclose(mine, hidden_states(model, text)[tap][0].numpy(), atol=1e-5, rtol=1e-5)


def test_a_tap_of_the_last_layer_is_not_normalised(tmp_path: Path) -> None:
    folder, model = saved(tmp_path, "llama")
    (mine,) = Encoder(folder, tap=-1).encode(TEXTS[:1], output_value="token_embeddings")
    with torch.inference_mode():
        theirs = hidden_states(model, TEXTS[0])[-1][0].numpy()
        np.testing.assert_allclose(model.norm(torch.tensor(mine)).numpy(), theirs, atol=1e-5, rtol=1e-5)
    assert np.abs(mine - theirs).max() > 0.01


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("layers", [1, 3, 4])
def test_the_first_layers(tmp_path: Path, name: str, layers: int) -> None:
    """As a model that has no more of them: the last norm counts."""
    folder, model = saved(tmp_path / "whole", name)
    stack = model.encoder.layer if name == "bert" else model.layers
    del stack[layers:]
    model.config.num_hidden_layers = layers
    model.save_pretrained(tmp_path / "cut")
    (tmp_path / "cut" / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    ours, cut = Encoder(folder, layers=layers), Encoder(tmp_path / "cut")
    np.testing.assert_array_equal(ours.encode(TEXTS), cut.encode(TEXTS))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 0}, "layers is 0, expected 1 to the model's 4"),
        ({"layers": 5}, "layers is 5, expected 1 to the model's 4"),
        ({"tap": 5}, "tap is 5, expected -5 to the model's 4 layers"),
        ({"tap": -6}, "tap is -6, expected -5 to the model's 4 layers"),
        ({"tap": 1, "layers": 2}, "give layers or tap, not both"),
    ],
)
def test_errors(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    folder, _ = saved(tmp_path, "bert")
    with pytest.raises(InputError, match=re.escape(message)):
        Encoder(folder, **options)


@pytest.mark.parametrize("first", [0, 2, 4])
@pytest.mark.parametrize("name", MODELS)
def test_a_weighted_mean_of_layers(tmp_path: Path, name: str, first: int) -> None:
    saved(tmp_path / "plain", name)
    transformer = modules.Transformer(str(tmp_path / "plain"), config_args={"output_hidden_states": True})
    layers = modules.WeightedLayerPooling(32, num_hidden_layers=4, layer_start=first)
    with torch.no_grad():
        layers.layer_weights += torch.linspace(0, 2, len(layers.layer_weights))
    peer = SentenceTransformer(modules=[transformer, layers, modules.Pooling(32)], device="cpu")
    peer.save(str(tmp_path / "saved"))
    ours = Encoder(tmp_path / "saved").encode(TEXTS)
    np.testing.assert_allclose(
        ours, SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(TEXTS), atol=2e-6
    )


def test_without_the_outputs_of_all_layers_the_module_does_nothing(tmp_path: Path) -> None:
    """As in sentence-transformers."""
    saved(tmp_path / "plain", "bert")
    transformer = modules.Transformer(str(tmp_path / "plain"))
    layers = modules.WeightedLayerPooling(32, num_hidden_layers=4, layer_start=1)
    peer = SentenceTransformer(modules=[transformer, layers, modules.Pooling(32)], device="cpu")
    peer.save(str(tmp_path / "saved"))
    np.testing.assert_allclose(Encoder(tmp_path / "saved").encode(TEXTS), peer.encode(TEXTS), atol=2e-6)


def test_a_module_for_another_model(tmp_path: Path) -> None:
    saved(tmp_path / "plain", "bert")
    transformer = modules.Transformer(str(tmp_path / "plain"), config_args={"output_hidden_states": True})
    layers = modules.WeightedLayerPooling(32, num_hidden_layers=4, layer_start=1)
    SentenceTransformer(modules=[transformer, layers, modules.Pooling(32)], device="cpu").save(str(tmp_path / "saved"))
    (file,) = (tmp_path / "saved").glob("*WeightedLayerPooling/config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"num_hidden_layers": 6}))
    with pytest.raises(Exception, match="'num_hidden_layers' is 6, but the model has 4"):
        Encoder(tmp_path / "saved")
