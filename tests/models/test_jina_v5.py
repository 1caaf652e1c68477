"""Jina v5: a LoRA for each task, beside PEFT's own on transformers' models, in float64."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import EuroBertConfig, EuroBertModel, Qwen3Config, Qwen3Model

from longspan import CheckpointError, Encoder, InputError

from .harness import SLACK, Peer, check, edit_config, ids_of, save, texts_of
from .tiny import BASE

TASKS = ("retrieval", "text-matching", "clustering", "classification")
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TEXTS = texts_of((1, 2, 5, 20, 60))
PROMPTS = {"query": "a b ", "document": "c "}
MODELS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "small": (Qwen3Model, Qwen3Config(**BASE), {}),
    "nano": (EuroBertModel, EuroBertConfig(**BASE), {"is_decoder": False}),
}
RANKS: dict[str, dict[str, Any]] = {"clustering": {"r": 7, "use_rslora": True}, "classification": {"lora_alpha": 3}}


def hub(folder: Path, kind: str, **changes: Any) -> Path:
    """The files of the hub: the model, adapters that differ in rank and scale, settings and a module of their own."""
    model, config, fields = MODELS[kind]
    save(folder, model(type(config)(**{**BASE, **changes})))
    edit_config(folder, architectures=["JinaEmbeddingsV5Model"], task_names=list(TASKS), **fields)
    torch.manual_seed(1)
    for task in TASKS:
        options = {"r": 4, "lora_alpha": 8, "target_modules": TARGETS, **RANKS.get(task, {})}
        peft = get_peft_model(model.from_pretrained(str(folder)), LoraConfig(**options))
        with torch.no_grad():
            for parameter in peft.parameters():
                if parameter.requires_grad:
                    parameter += 0.2 * torch.randn_like(parameter)
        peft.save_pretrained(str(folder / "adapters" / task))
    edit_config(folder, model_type="jina_embeddings_v5")
    entry = {"idx": 0, "name": "transformer", "path": "", "type": "custom_st.Transformer", "kwargs": ["task"]}
    (folder / "modules.json").write_text(json.dumps([entry]))
    options = {"prompts": PROMPTS, "default_prompt_name": "document", "similarity_fn_name": "cosine"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(options))
    return folder


@pytest.fixture(scope="module", params=MODELS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hub(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Encoder:
    return Encoder(folder)


def theirs(folder: Path, task: str, texts: list[str], dtype: torch.dtype) -> Any:
    """The last token's vector under the task's adapter, of unit length."""
    decoder = json.loads((folder / "config.json").read_text()).get("is_decoder", True)
    model, config, _ = MODELS["small" if decoder else "nano"]
    base = model.from_pretrained(str(folder), config=config, dtype=dtype, attn_implementation="eager")
    peft = PeftModel.from_pretrained(base, str(folder / "adapters" / task)).eval()
    found = []
    for text in texts:
        with torch.inference_mode():
            vector = peft(input_ids=ids_of(text)[None]).last_hidden_state[0, -1]
        found.append((vector / vector.norm()).numpy())
    return np.array(found, np.float64)


def test_tasks(folder: Path, encoder: Encoder) -> None:
    """The greatest error of all tasks and texts, beside torch's."""
    texts = [*TEXTS, *texts_of((3, 9, 14, 33, 47, 80))]
    ours, other = 0.0, 0.0
    for task in TASKS:
        prompted = [PROMPTS["document"] + text for text in texts]
        exact, single = (theirs(folder, task, prompted, dtype) for dtype in (torch.float64, torch.float32))
        ours = max(ours, float(np.abs(encoder.encode(texts, task=task) - exact).max()))
        other = max(other, float(np.abs(single - exact).max()))
        cut = encoder.encode(texts, task=task, truncate_dim=16)
        np.testing.assert_allclose(cut, exact[:, :16] / np.linalg.norm(exact[:, :16], axis=1)[:, None], atol=1e-5)
    assert ours <= 2 * other + SLACK


class Merged:
    """A model of transformers with the adapter of a task merged by PEFT."""

    def __init__(self, task: str) -> None:
        self.task = task

    def from_pretrained(self, folder: str, **options: Any) -> Any:
        decoder = json.loads((Path(folder) / "config.json").read_text()).get("is_decoder", True)
        model, config, _ = MODELS["small" if decoder else "nano"]
        fields = json.loads((Path(folder) / "config.json").read_text())
        own = type(config)(
            **{name: value for name, value in fields.items() if name not in ("model_type", "task_names")}
        )
        base = model.from_pretrained(folder, config=own, **options)
        return PeftModel.from_pretrained(base, str(Path(folder) / "adapters" / self.task)).merge_and_unload()


CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "one kv head": {"num_key_value_heads": 1},
    "head size 8": {"head_dim": 8, "num_attention_heads": 6, "hidden_size": 48},
    "wide": {
        "hidden_size": 264,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "head_dim": 88,
        "num_hidden_layers": 1,
    },
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("kind", MODELS)
def test_configs(tmp_path: Path, kind: str, name: str) -> None:
    task = TASKS[list(CONFIGS).index(name)]
    folder = hub(tmp_path, kind, **CONFIGS[name])
    for file in ("modules.json", "config_sentence_transformers.json"):
        (folder / file).unlink()
    check(folder, Peer(Merged(task)), task=task)


def test_queries_and_documents(folder: Path, encoder: Encoder) -> None:
    """Both are the task of retrieval, with prompts of their own."""
    assert encoder.tasks == ("query", "document", *TASKS)
    for call, name in ((encoder.encode_query, "query"), (encoder.encode_document, "document")):
        expected = theirs(folder, "retrieval", [PROMPTS[name] + text for text in TEXTS], torch.float64)
        np.testing.assert_allclose(call(TEXTS), expected, atol=1e-5)
    documents = encoder.encode_chunks(TEXTS)
    np.testing.assert_allclose([one.vector for one in documents], encoder.encode_document(TEXTS), atol=1e-6)


def test_bits(encoder: Encoder) -> None:
    """A task's vectors do not depend on the batch; tasks differ."""
    for task in TASKS:
        alone = [encoder.encode(text, task=task).tobytes() for text in TEXTS]
        assert [vector.tobytes() for vector in encoder.encode(TEXTS, task=task)] == alone
    assert len({encoder.encode(TEXTS[-1], task=task).tobytes() for task in TASKS}) == len(TASKS)


def test_a_call_needs_a_task(encoder: Encoder) -> None:
    known = "the model needs a task; known are 'query', 'document', 'retrieval'"
    with pytest.raises(InputError, match=known):
        encoder.encode(TEXTS)
    with pytest.raises(InputError, match=known):
        encoder.stream(TEXTS)
    with pytest.raises(InputError, match="there is no task 'sorting'"):
        encoder.encode(TEXTS, task="sorting")


@pytest.mark.parametrize("weights", ["auto", "bfloat16", "int8"])
def test_saved(folder: Path, tmp_path: Path, weights: Any) -> None:
    before = Encoder(folder, weights=weights)
    before.save(tmp_path / "saved")
    assert (tmp_path / "saved" / "adapters").exists() == (weights == "auto")
    after = Encoder(tmp_path / "saved")
    for task in ("query", *TASKS):
        assert after.encode(TEXTS, task=task).tobytes() == before.encode(TEXTS, task=task).tobytes()


def test_plain_folder(folder: Path, encoder: Encoder, tmp_path: Path) -> None:
    """Without sentence-transformers' files it is what the model's own `encode` does, with its own prompts."""
    plain = tmp_path / "plain"
    shutil.copytree(folder, plain)
    for name in ("modules.json", "config_sentence_transformers.json"):
        (plain / name).unlink()
    ours = Encoder(plain)
    assert ours.prompts == {"query": "Query: ", "document": "Document: "}
    assert ours.default_prompt_name == "document"
    expected = encoder.encode(TEXTS, task="clustering", prompt="")
    assert ours.encode(TEXTS, task="clustering", prompt="").tobytes() == expected.tobytes()
    ours.save(tmp_path / "saved")
    assert Encoder(tmp_path / "saved").encode_query(TEXTS).tobytes() == ours.encode_query(TEXTS).tobytes()


def test_one_adapter_merged_is_the_task_alone(folder: Path, encoder: Encoder, tmp_path: Path) -> None:
    """The merged siblings on the hub are plain models of the base's type."""
    base = tmp_path / "base"
    shutil.copytree(folder, base)
    (base / "modules.json").unlink()
    decoder = json.loads((folder / "config.json").read_text()).get("is_decoder", True)
    edit_config(base, model_type="qwen3" if decoder else "eurobert")
    merged = Encoder(base, adapter=folder / "adapters" / "clustering", pooling="lasttoken")
    expected = encoder.encode(TEXTS, task="clustering", prompt="")
    np.testing.assert_allclose(merged.encode(TEXTS, normalize_embeddings=True), expected, atol=1e-5)


def broken(folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(folder, tmp_path / "broken")
    return tmp_path / "broken"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task_names": None}, "field 'task_names' is missing or empty"),
        ({"task_names": "retrieval"}, "field 'task_names' is 'retrieval', expected a list of strings"),
        ({"task_names": ["retrieval", "retrieval"]}, "field 'task_names' must be a list of tasks, each once"),
        ({"task_names": ["../retrieval"]}, "field 'task_names' has the task '../retrieval', which names no folder"),
        ({"task_names": ["sorting"]}, "adapters/sorting/adapter_config.json does not exist"),
    ],
)
def test_config_errors(folder: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        Encoder(edit_config(broken(folder, tmp_path), **changes))


def test_the_wrong_model(folder: Path, tmp_path: Path) -> None:
    decoder = json.loads((folder / "config.json").read_text()).get("is_decoder", True)
    with pytest.raises(CheckpointError, match=r"field 'is_decoder' is .*, but the checkpoint"):
        Encoder(edit_config(broken(folder, tmp_path), is_decoder=not decoder))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_dora": True}, "is more than a pair of matrices"),
        ({"lora_bias": True}, "is more than a pair of matrices"),
        ({"modules_to_save": ["norm"]}, "is more than a pair of matrices"),
        ({"target_modules": ["embed_tokens"]}, "is more than a pair of matrices"),
    ],
)
def test_adapters_that_are_not_plain(folder: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    copy = broken(folder, tmp_path)
    decoder = json.loads((folder / "config.json").read_text()).get("is_decoder", True)
    model, config, _ = MODELS["small" if decoder else "nano"]
    peft = get_peft_model(model(config), LoraConfig(**{"r": 2, "target_modules": ["q_proj"], **options}))
    peft.save_pretrained(str(copy / "adapters" / "retrieval"))
    with pytest.raises(CheckpointError, match=f"adapters/retrieval.*{message}"):
        Encoder(copy)
