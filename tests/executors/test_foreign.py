"""Models that transformers runs: their token vectors, our pooling."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules
from tests.models.harness import VOCABULARY, ids_of, save, texts_of
from transformers import (
    AlbertConfig,
    AlbertModel,
    AutoModel,
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    LongT5Config,
    LongT5Model,
    M2M100Config,
    M2M100Model,
    Qwen2_5_VLConfig,
    Qwen2_5_VLModel,
    RobertaPreLayerNormConfig,
    RobertaPreLayerNormModel,
    SwitchTransformersConfig,
    SwitchTransformersModel,
    ViTConfig,
    ViTModel,
    XLMConfig,
    XLMModel,
)

from longspan import CheckpointError, Encoder, InputError

TEXTS = texts_of((0, 1, 2, 5, 5, 20, 64))
SMALL: dict[str, Any] = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "max_position_embeddings": 66,
}


@pytest.fixture(scope="module")
def albert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model type that Longspan does not know, as a whole pipeline."""
    folder = tmp_path_factory.mktemp("albert")
    save(folder / "plain", AlbertModel(AlbertConfig(embedding_size=16, **SMALL)))
    parts = [modules.Transformer(str(folder / "plain")), modules.Pooling(32), modules.Normalize()]
    SentenceTransformer(modules=parts, device="cpu").save(str(folder / "saved"))
    return folder / "saved"


def test_vectors(albert: Path) -> None:
    """As sentence-transformers'."""
    theirs = SentenceTransformer(str(albert), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(Encoder(albert, backend="transformers", device="cpu").encode(TEXTS), theirs, atol=2e-6)


def test_the_error_for_an_unknown_model_offers_it(albert: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'albert', which is not supported.*backend='transformers'"):
        Encoder(albert)


def test_chunks_and_windows(tmp_path: Path) -> None:
    """The same pipeline around another body: chunks, windows and cuts come out as with our own."""
    folder = save(tmp_path, BertModel(BertConfig(**SMALL)))
    text = texts_of((300,))[0]
    ours, theirs = Encoder(folder, device="cpu"), Encoder(folder, backend="transformers", device="cpu")
    a, b = (encoder.encode_chunks(text, chunk_tokens=(16, 40), truncate_dim=16) for encoder in (ours, theirs))
    assert a.windows == b.windows
    for size in (16, 40):
        assert a.levels[size].spans == b.levels[size].spans
        np.testing.assert_allclose(a.levels[size].vectors, b.levels[size].vectors, atol=1e-5)
    np.testing.assert_allclose(a.vector, b.vector, atol=1e-5)


@pytest.mark.parametrize("options", [{"layers": 1}, {"tap": -2}, {"adapter": "x"}])
def test_what_it_does_not_do(albert: Path, options: dict[str, object]) -> None:
    with pytest.raises(InputError, match="runs a model as it is"):
        Encoder(albert, backend="transformers", device="cpu", **options)  # type: ignore[arg-type]


M2M_SIDES = {"layers": 1, "attention_heads": 2, "ffn_dim": 40}
IMAGES = {"image_size": 32, "patch_size": 16}
VOCAB, PAIR = {"vocab_size": len(VOCABULARY)}, {"num_layers": 2, "num_heads": 2}
T5: dict[str, Any] = {**VOCAB, **PAIR, "d_model": 32, "d_kv": 8, "d_ff": 40}
M2M: dict[str, Any] = {
    **VOCAB,
    "d_model": 32,
    "pad_token_id": 0,
    **{f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in M2M_SIDES.items()},
}
VISION = {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": 32}
MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
OTHERS: dict[str, Callable[[], Any]] = {
    "encoder alone": lambda: LongT5Model(LongT5Config(**T5)),
    "experts": lambda: SwitchTransformersModel(SwitchTransformersConfig(**T5, num_experts=2)),
    "no decoder ids": lambda: M2M100Model(M2M100Config(**M2M)),
    "positions kept for padding": lambda: RobertaPreLayerNormModel(RobertaPreLayerNormConfig(**SMALL, pad_token_id=1)),
    "another name of the width": lambda: XLMModel(XLMConfig(**VOCAB, emb_dim=32, n_layers=2, n_heads=2)),
    "a part for texts": lambda: Qwen2_5_VLModel(
        Qwen2_5_VLConfig(
            text_config={**SMALL, "num_key_value_heads": 2, "rope_parameters": MROPE}, vision_config=VISION
        )
    ),
}


@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
@pytest.mark.parametrize("name", OTHERS)
def test_other_models(tmp_path: Path, name: str) -> None:
    """As transformers', and as long as there are positions."""
    folder = save(tmp_path, OTHERS[name]())
    model = AutoModel.from_pretrained(str(folder), dtype=torch.float32).eval()
    encoder = Encoder(folder, backend="transformers", device="cpu", pooling="mean", long_text="truncate")
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    texts = texts_of((0, 3, 50, 300))
    with torch.inference_mode():
        ids = [ids_of(text)[None] for text in texts]
        cut = [torch.cat([one[:, : min(encoder.max_seq_length, one.shape[1]) - 1], one[:, -1:]], 1) for one in ids]
        theirs = [
            model(input_ids=one, attention_mask=torch.ones_like(one)).last_hidden_state[0].mean(0).numpy()
            for one in cut
        ]
    np.testing.assert_allclose(encoder.encode(texts), theirs, atol=5e-6)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: ViTModel(ViTConfig(**{**SMALL, **IMAGES, "vocab_size": None})), "field 'vocab_size' is missing"),
        (lambda: CLIPModel(CLIPConfig(text_config=SMALL, vision_config={**SMALL, **IMAGES})), "no token vectors"),
    ],
)
def test_a_model_of_something_else(tmp_path: Path, model: Callable[[], Any], message: str) -> None:
    folder = save(tmp_path, model())
    with pytest.raises(CheckpointError, match=message):
        Encoder(folder, backend="transformers", device="cpu")


def test_a_damaged_config(albert: Path, tmp_path: Path) -> None:
    for path in albert.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((albert / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_size": -3}))
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path))):
        Encoder(tmp_path, backend="transformers", device="cpu")
