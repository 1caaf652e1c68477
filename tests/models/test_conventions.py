"""Plain folders of LLM2Vec and GritLM, beside what their authors' code computes, in float64."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaModel, MistralConfig, MistralModel

from longspan import CheckpointError, Encoder, InputError

from .harness import SLACK, VOCABULARY, edit_config, save, texts_of
from .tiny import BASE

TEXTS = texts_of((1, 2, 5, 20, 60))
INSTRUCTION = "a b c "
CODE = {"AutoModel": "modeling_gritlm7b.MistralModel", "AutoModelForCausalLM": "modeling_gritlm7b.MistralForCausalLM"}


def begun_only(folder: Path) -> Path:
    """The tokenizer puts <s> before a text and nothing behind it, as those of Llama and Mistral."""
    path = folder / "tokenizer.json"
    spec = json.loads(path.read_text())
    spec["post_processor"]["single"] = spec["post_processor"]["single"][:2]
    path.write_text(json.dumps(spec))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": "{{ messages }}"}))
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return begun_only(save(tmp_path_factory.mktemp("llama"), LlamaModel(LlamaConfig(**BASE))))


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = MistralConfig(**BASE, sliding_window=None)
    return begun_only(save(tmp_path_factory.mktemp("mistral"), MistralModel(config)))


def copied(source: Path, target: Path, **fields: Any) -> Path:
    """The folder with other fields in its config."""
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return edit_config(target, **fields)


def llm2vec(source: Path, target: Path, **fields: Any) -> Path:
    """The folder as LLM2Vec saves it."""
    folder = copied(source, target, architectures=["LlamaForCausalLM"])
    usual = {"pooling_mode": "mean", "max_length": 512, "doc_max_length": 400, "skip_instruction": True}
    (folder / "llm2vec_config.json").write_text(json.dumps({**usual, **fields}))
    return folder


def hidden(folder: Path, model: Any, dtype: torch.dtype, prompt: str) -> list[Any]:
    """[1 + r + n, D] of each text behind <s> and the prompt, with sight of both sides."""
    config = model.config_class.from_pretrained(str(folder))
    config.is_causal = False
    loaded = model.from_pretrained(str(folder), config=config, dtype=dtype, attn_implementation="eager").eval()
    found = []
    for text in TEXTS:
        ids = [2, *(VOCABULARY.index(word) if word in VOCABULARY else 1 for word in (prompt + text).split())]
        with torch.inference_mode():
            found.append(loaded(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy())
    return found


def llm2vec_pooled(rows: Any, own: int, mode: str, skip: bool) -> Any:
    """One vector, from the rows of a text of `own` tokens."""
    counted = rows[-own:] if skip else rows
    if mode == "weighted_mean":
        return np.average(counted, 0, np.arange(1, len(counted) + 1))
    return {"mean": counted.mean(0), "last_token": rows[-1], "bos_token": rows[0]}[mode]


@pytest.mark.parametrize("prompt", ["", INSTRUCTION])
@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("mode", ["mean", "weighted_mean", "last_token", "bos_token"])
def test_llm2vec(llama: Path, tmp_path: Path, mode: str, skip: bool, prompt: str) -> None:
    folder = llm2vec(llama, tmp_path / "model", pooling_mode=mode, skip_instruction=skip)
    exact, theirs = (
        np.array(
            [
                llm2vec_pooled(rows, len(text.split()), mode, skip)
                for text, rows in zip(TEXTS, hidden(llama, LlamaModel, dtype, prompt), strict=True)
            ],
            np.float64,
        )
        for dtype in (torch.float64, torch.float32)
    )
    ours = Encoder(folder).encode(TEXTS, prompt=prompt)
    assert np.abs(ours - exact).max() <= 2 * np.abs(theirs - exact).max() + SLACK


@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
def test_llm2vec_cuts_and_chooses(llama: Path, tmp_path: Path) -> None:
    folder = llm2vec(llama, tmp_path / "model", max_length=40)
    encoder = Encoder(folder)
    assert encoder.max_seq_length == 40
    whole = Encoder(folder, include_prompt=True, max_seq_length=100).encode(TEXTS)
    rows = hidden(llama, LlamaModel, torch.float32, "")
    np.testing.assert_allclose(whole, [mine.mean(0) for mine in rows], atol=1e-5)
    document = encoder.encode_chunks(TEXTS[-1], spans=[(0, len(TEXTS[-1]))])
    np.testing.assert_allclose(document.vectors[0], document.vector, atol=1e-6)
    with pytest.raises(InputError, match="is pooled as by LLM2Vec's or GritLM's code, and so not saved"):
        encoder.save(tmp_path / "saved")


def test_an_adapter_of_llm2vec(llama: Path, tmp_path: Path) -> None:
    """Its folder has the file, and the base model's has not."""
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = get_peft_model(LlamaModel.from_pretrained(str(llama)), lora)
    adapted.save_pretrained(str(tmp_path / "adapter"))
    adapted.merge_and_unload().save_pretrained(str(tmp_path / "merged"))
    said = llm2vec(llama, tmp_path / "said") / "llm2vec_config.json"
    (tmp_path / "adapter" / said.name).write_bytes(said.read_bytes())
    base = copied(llama, tmp_path / "base", architectures=["LlamaForCausalLM"])
    ours = Encoder(base, adapter=tmp_path / "adapter").encode(TEXTS, prompt=INSTRUCTION)
    rows = hidden(tmp_path / "merged", LlamaModel, torch.float32, INSTRUCTION)
    expected = [mine[-len(text.split()) :].mean(0) for text, mine in zip(TEXTS, rows, strict=True)]
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    with pytest.raises(CheckpointError, match="holds a chat template"):
        Encoder(base)


@pytest.mark.parametrize("prompt", [None, "<|user|>\na b\n<|embed|>\n"])
def test_gritlm(mistral: Path, tmp_path: Path, prompt: str | None) -> None:
    folder = copied(mistral, tmp_path / "model", architectures=["MistralForCausalLM"], auto_map=CODE)
    encoder = Encoder(folder)
    assert encoder.prompts == {"query": "<|embed|>\n", "document": "<|embed|>\n"}
    # The tokenizer makes the prompt's parts unknown tokens: <| embed |> is three, <| user |> a b <| embed |> eight.
    words, count = ("? ? ? ", 3) if prompt is None else ("? ? ? a b ? ? ? ", 8)
    vectors = []
    for dtype in (torch.float64, torch.float32):
        pooled = [rows[1 + count :].mean(0) for rows in hidden(mistral, MistralModel, dtype, words)]
        vectors.append(np.array([vector / np.linalg.norm(vector) for vector in pooled], np.float64))
    exact, theirs = vectors
    for call in (encoder.encode, encoder.encode_query, encoder.encode_document):
        assert np.abs(call(TEXTS, prompt=prompt) - exact).max() <= 2 * np.abs(theirs - exact).max() + SLACK
    with pytest.raises(InputError, match="not saved"):
        encoder.save(tmp_path / "saved")


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        ("llm2vec_config.json", {"pooling_mode": "eos_token"}, "'pooling_mode' is 'eos_token'; supported are mean, w"),
        ("llm2vec_config.json", {"skip_instruction": 1}, "'skip_instruction' is .*, expected true or false"),
        ("llm2vec_config.json", {"max_length": 0}, "'max_length' is .*, expected a positive integer"),
        ("config.json", {"_name_or_path": "mistralai/Mistral-7B-Instruct-v0.2"}, "'_name_or_path' is a model for chat"),
        (
            "adapter_config.json",
            {"base_model_name_or_path": "meta-llama/Llama-2-7b-chat-hf"},
            "'base_model_name_or_path' is a model for chat",
        ),
    ],
)
def test_what_is_refused(llama: Path, tmp_path: Path, file: str, fields: dict[str, Any], message: str) -> None:
    folder = llm2vec(llama, tmp_path / "model")
    path = folder / file
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **fields}))
    with pytest.raises(CheckpointError, match=message):
        Encoder(folder)
