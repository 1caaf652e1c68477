"""Plain folders of LLM2Vec and GritLM, beside what their authors' code computes, in float64."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
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
    encoder.save(tmp_path / "saved")
    assert Encoder(tmp_path / "saved").encode(TEXTS).tobytes() == encoder.encode(TEXTS).tobytes()


WRAPPED = [
    ("meta-llama/Meta-Llama-3-8B-Instruct", "mean", "<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
    ("meta-llama/Meta-Llama-3-8B-Instruct", "eos_token", "<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
    ("mistralai/Mistral-7B-Instruct-v0.2", "mean", "[INST] ", " [/INST]"),
    ("mistralai/Mistral-7B-Instruct-v0.2", "weighted_mean", "[INST] ", " [/INST]"),
    ("meta-llama/Llama-2-7b-chat-hf", "eos_token", "[INST] ", " [/INST] </s>"),
    ("google/gemma-2-9b-it", "last_token", "<bos><start_of_turn>user\n", "<end_of_turn>"),
    ("Qwen/Qwen2-7B-Instruct", "mean", "<|im_start|>user\n", "<|im_end|>"),
    ("meta-llama/Meta-Llama-3-8B", "eos_token", "", "<|end_of_text|>"),
    ("somebody/llama", "eos_token", "", " </s>"),
]


@pytest.mark.parametrize("prompt", ["", INSTRUCTION])
@pytest.mark.parametrize(("name", "mode", "opening", "closing"), WRAPPED)
def test_chat_formats(
    llama: Path, tmp_path: Path, name: str, mode: str, opening: str, closing: str, prompt: str
) -> None:
    """LLM2Vec puts text and instruction into the base model's format, and pools what is behind the instruction."""
    folder = llm2vec(llama, tmp_path / "model", pooling_mode=mode)
    edit_config(folder, _name_or_path=name)
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = ["  a b  ", "c", "d e f g h a b"]
    config = LlamaConfig.from_pretrained(str(llama))
    config.is_causal = False
    model = LlamaModel.from_pretrained(str(llama), config=config).eval()
    expected = []
    for text in texts:
        ids = tokenizer.encode(opening + (prompt + text).strip() + closing).ids
        own = len(tokenizer.encode(text.strip() + closing, add_special_tokens=False).ids)
        with torch.inference_mode():
            rows = model(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy()
        expected.append(llm2vec_pooled(rows, own, "last_token" if mode == "eos_token" else mode, skip=True))
    encoder = Encoder(folder)
    np.testing.assert_allclose(encoder.encode(texts, prompt=prompt), expected, atol=2e-5)
    again = pickle.loads(pickle.dumps(encoder))
    assert again.encode(texts, prompt=prompt).tobytes() == encoder.encode(texts, prompt=prompt).tobytes()
    document = encoder.encode_chunks(texts[2], spans=[(0, 3), (4, 13)], prompt=prompt)
    assert [document.text(i) for i in range(2)] == ["d e", "f g h a b"]


@pytest.mark.parametrize("weights", ["auto", "int8"])
def test_saved_folders_stay_plain(llama: Path, tmp_path: Path, weights: Any) -> None:
    """What the adapter's folder said of its base is said by the merged folder."""
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(LlamaModel.from_pretrained(str(llama)), lora).save_pretrained(str(tmp_path / "adapter"))
    said = llm2vec(llama, tmp_path / "said") / "llm2vec_config.json"
    (tmp_path / "adapter" / said.name).write_bytes(said.read_bytes())
    config = tmp_path / "adapter" / "adapter_config.json"
    about = {**json.loads(config.read_text()), "base_model_name_or_path": "mistralai/Mistral-7B-Instruct-v0.2"}
    config.write_text(json.dumps(about))
    encoder = Encoder(llama, adapter=tmp_path / "adapter", weights=weights)
    assert len(encoder.encode("a b", output_value="token_embeddings")) == 1 + 3 + 2 + 3
    encoder.save(tmp_path / "saved")
    again = Encoder(tmp_path / "saved")
    for prompt in ("", INSTRUCTION):
        assert again.encode(TEXTS, prompt=prompt).tobytes() == encoder.encode(TEXTS, prompt=prompt).tobytes()
    assert not (tmp_path / "saved" / "modules.json").exists()
    again.prompts = {**again.prompts, "query": "a "}
    with pytest.raises(InputError, match="no place for what was set: prompts"):
        again.save(tmp_path / "again")
    with pytest.raises(InputError, match="no place for what was set: pooling"):
        Encoder(tmp_path / "saved", pooling="cls").save(tmp_path / "again")


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        ("llm2vec_config.json", {"pooling_mode": "max"}, "'pooling_mode' is 'max'; supported are mean, weighted"),
        ("llm2vec_config.json", {"skip_instruction": 1}, "'skip_instruction' is .*, expected true or false"),
        ("llm2vec_config.json", {"max_length": 0}, "'max_length' is .*, expected a positive integer"),
        ("config.json", {"_name_or_path": "mistralai/Mistral-7B-Instruct-v0.9"}, "'_name_or_path' is a model for chat"),
        (
            "adapter_config.json",
            {"base_model_name_or_path": "meta-llama/Llama-9-7b-chat-hf", "r": 2},
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
