"""Encoders of several families behind sentence-transformers' modules, judged by sentence-transformers in float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import (
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    EuroBertConfig,
    EuroBertModel,
    GteConfig,
    GteModel,
    JinaEmbeddingsV3Config,
    JinaEmbeddingsV3Model,
    ModernBertConfig,
    ModernBertModel,
    MPNetConfig,
    MPNetModel,
    NomicBertConfig,
    NomicBertModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
    UltrabertConfig,
    UltrabertModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from longspan import Encoder

from .harness import SLACK, VOCABULARY, save, texts_of

SIZES: dict[str, Any] = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 48,
    "num_attention_heads": 3,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "max_position_embeddings": 100,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
DISTIL: dict[str, Any] = {"vocab_size": 40, "dim": 48, "n_heads": 3, "hidden_dim": 80, "n_layers": 2}
T5: dict[str, Any] = {"vocab_size": 40, "d_model": 48, "d_kv": 16, "num_heads": 3, "d_ff": 80, "num_layers": 2}

MODELS: dict[str, Callable[[], Any]] = {
    "distilbert": lambda: DistilBertModel(DistilBertConfig(**DISTIL, max_position_embeddings=100)),
    "electra": lambda: ElectraModel(ElectraConfig(**SIZES)),
    "eurobert": lambda: EuroBertModel(EuroBertConfig(**SIZES)),
    "gte": lambda: GteModel(GteConfig(**SIZES)),
    "jina_embeddings_v3": lambda: JinaEmbeddingsV3Model(JinaEmbeddingsV3Config(**SIZES)),
    "modernbert": lambda: ModernBertModel(ModernBertConfig(**SIZES, cls_token_id=2, sep_token_id=3)),
    "mpnet": lambda: MPNetModel(MPNetConfig(**SIZES)),
    "nomic_bert": lambda: NomicBertModel(NomicBertConfig(**SIZES)),
    "t5": lambda: T5EncoderModel(T5Config(**T5)),
    "ultrabert": lambda: UltrabertModel(UltrabertConfig(**SIZES)),
    "xlm-roberta": lambda: XLMRobertaModel(XLMRobertaConfig(**SIZES)),
}


def saved(folder: Path, family: str, pooling: str | None, longest: int) -> Path:
    """A sentence-transformers model, or without a pooling its transformer alone."""
    plain = save(folder / "plain", MODELS[family]())
    specials = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(plain / "tokenizer.json"), model_max_length=longest, **specials
    )
    tokenizer.save_pretrained(plain)
    if pooling is None:
        return plain
    modules = [Transformer(str(plain)), Pooling(48, pooling_mode=pooling), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "whole"))
    return folder / "whole"


@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
@pytest.mark.parametrize(
    ("family", "pooling"),
    [("mpnet", "mean"), ("xlm-roberta", "cls"), ("modernbert", "cls"), ("t5", "mean"), ("gte", "cls")],
)
def test_vectors(tmp_path: Path, family: str, pooling: str) -> None:
    folder, texts = saved(tmp_path, family, pooling, 90), texts_of()
    dtypes = (torch.float64, torch.float32)
    peers = [SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": dtype}) for dtype in dtypes]
    exact, theirs = (np.asarray(peer.encode(texts), np.float64) for peer in peers)
    ours = Encoder(folder, long_text="truncate").encode(texts)
    assert np.abs(ours - exact).max() <= 2 * np.abs(theirs - exact).max() + SLACK


@pytest.mark.parametrize("longest", [90, 400])
@pytest.mark.parametrize("family", MODELS)
def test_maximum(tmp_path: Path, family: str, longest: int) -> None:
    """As sentence-transformers', save where that exceeds the positions there are."""
    folder = saved(tmp_path, family, None, longest)
    theirs = SentenceTransformer(str(folder), device="cpu").max_seq_length
    too_many = {"mpnet": 2, "xlm-roberta": 1}.get(family, 0) if longest > 100 else 0
    assert theirs is not None
    assert Encoder(folder).max_seq_length == theirs - too_many
