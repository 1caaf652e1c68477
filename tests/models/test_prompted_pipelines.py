"""Whole pipelines with instructions: language models, Sentence-T5, INSTRUCTOR and NV-Embed, judged in float64."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import (
    LlamaConfig,
    LlamaModel,
    MistralConfig,
    MistralModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
)

from longspan import Encoder

from . import test_nvembed as nvembed
from .harness import SLACK, VOCABULARY, Formula, save, texts_of
from .tiny import BASE

INSTRUCTION = "q u e r y "
PROMPTS = {"query": INSTRUCTION, "document": ""}
TEXTS = texts_of((0, 1, 2, 9, 13, 64, 131))
CAUSAL: dict[str, Any] = {
    "llama": lambda: LlamaModel(LlamaConfig(**BASE)),
    "mistral": lambda: MistralModel(MistralConfig(**BASE, sliding_window=20)),
    "qwen3": lambda: Qwen3Model(Qwen3Config(**BASE)),
}
T5: dict[str, Any] = {"vocab_size": len(VOCABULARY), "d_model": 48, "d_kv": 16, "num_heads": 3, "d_ff": 80}


def plain(folder: Path, model: Any, **tokenizer: Any) -> Path:
    """A checkpoint with a tokenizer that transformers saved."""
    save(folder, model)
    specials = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    file = str(folder / "tokenizer.json")
    PreTrainedTokenizerFast(tokenizer_file=file, model_max_length=150, **specials, **tokenizer).save_pretrained(folder)
    return folder


def saved(folder: Path, model: Any, *modules: Any) -> Path:
    """What sentence-transformers saves of a model with these modules and the prompts."""
    return piped(plain(folder / "plain", model), folder / "whole", *modules)


def piped(plain: Path, folder: Path, *modules: Any) -> Path:
    """The same of a checkpoint."""
    first = Transformer(str(plain))
    SentenceTransformer(modules=[first, *modules], prompts=PROMPTS, device="cpu").save(str(folder))
    return folder


def check(folder: Path, peer: Path | None = None, **options: Any) -> None:
    """Our error is at most twice that of sentence-transformers in float32, with the instruction and without."""
    ours = Encoder(folder, long_text="truncate", device="cpu", **options)
    peers = [
        SentenceTransformer(str(peer or folder), device="cpu", model_kwargs={"dtype": dtype})
        for dtype in (torch.float64, torch.float32)
    ]
    for peer_model in peers:  # its Dense modules stay in float32 otherwise
        peer_model.to(next(peer_model.parameters()).dtype)
    for prompt in (None, INSTRUCTION):
        exact, theirs = (np.asarray(one.encode(TEXTS, prompt=prompt), np.float64) for one in peers)
        expect(ours.encode(TEXTS, prompt=prompt or ""), exact, theirs)
    named, given = ours.encode(TEXTS, prompt_name="query"), ours.encode(TEXTS, prompt=INSTRUCTION)
    assert named.tobytes() == given.tobytes() == ours.encode_query(TEXTS).tobytes()


def expect(ours: Any, exact: Any, theirs: Any) -> None:
    slack = SLACK * float(np.abs(exact).max())
    assert np.abs(ours - exact).max() <= 2 * np.abs(theirs - exact).max() + slack


@pytest.mark.parametrize(
    ("name", "mode", "include_prompt"),
    [
        ("llama", "lasttoken", True),
        ("llama", "weightedmean", True),
        ("llama", "weightedmean", False),
        ("mistral", "mean", False),
        ("mistral", "lasttoken", False),
        ("qwen3", "lasttoken", True),
        ("qwen3", "mean", True),
    ],
)
def test_language_models(tmp_path: Path, name: str, mode: str, include_prompt: bool) -> None:
    """The last token behind an instruction, as E5-Mistral's and Qwen3-Embedding's; SGPT's weighted mean."""
    modules = (Pooling(48, pooling_mode=mode, include_prompt=include_prompt), Normalize())
    check(saved(tmp_path, CAUSAL[name](), *modules))


def test_a_chat_template_that_is_not_applied(tmp_path: Path) -> None:
    """With a pooling of one's own, as sentence-transformers where the folder says that texts are text."""
    folder = plain(tmp_path / "chat", Qwen2ForCausalLM(Qwen2Config(**BASE)), chat_template="{{ messages }}")
    bare = shutil.copytree(folder, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    peer = piped(bare, tmp_path / "peer", Pooling(48, pooling_mode="lasttoken"))
    ours = Encoder(folder, pooling="lasttoken", prompts=PROMPTS, long_text="truncate", device="cpu")
    ours.save(tmp_path / "saved")
    assert Encoder(tmp_path / "saved", long_text="truncate").encode(TEXTS).tobytes() == ours.encode(TEXTS).tobytes()
    check(tmp_path / "saved", peer)
    check(tmp_path / "saved")


@pytest.mark.parametrize("include_prompt", [True, False], ids=["Sentence-T5", "INSTRUCTOR"])
@pytest.mark.parametrize("width", [48, 72])
def test_t5(tmp_path: Path, width: int, include_prompt: bool) -> None:
    """The mean of an encoder, with the instruction or without, a matrix, unit length."""
    model = T5EncoderModel(T5Config(**T5, num_layers=2, pad_token_id=0, eos_token_id=3))
    torch.manual_seed(1)
    dense = Dense(48, width, bias=False, activation_function=torch.nn.Identity())
    check(saved(tmp_path, model, Pooling(48, pooling_mode="mean", include_prompt=include_prompt), dense, Normalize()))


def test_nvembed_pipeline(tmp_path: Path) -> None:
    """Its modules, as NV-Embed-v2's modules.json has them: the mean of what stands behind the instruction."""
    folder = nvembed.save(tmp_path, {}, {})
    kinds = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, path) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    fields = {"word_embedding_dimension": 48, "pooling_mode_mean_tokens": True, "include_prompt": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(fields))
    encoder = Encoder(folder, device="cpu")
    for prompt in ("", INSTRUCTION):
        exact, theirs = (pooled_nvembed(folder, dtype, prompt) for dtype in DTYPES)
        expect(encoder.encode(TEXTS, prompt=prompt), exact, theirs)


DTYPES = (torch.float64, torch.float32)


def pooled_nvembed(folder: Path, dtype: torch.dtype, prompt: str) -> Any:
    """Unit vectors [n, D]: means of the tokens that are neither the instruction's nor before it."""
    matrices = Formula(nvembed.vectors).token_vectors(folder, dtype, [prompt + text for text in TEXTS])
    left_out = 1 + len(prompt.split()) if prompt else 0
    means = np.stack([matrix[left_out:].mean(0) for matrix in matrices])
    return means / np.linalg.norm(means, axis=1, keepdims=True)
