"""Jina v3's adaptations for tasks, as the original code adds them to the weights."""

from __future__ import annotations

import itertools
import json
import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from transformers import AutoConfig, AutoModel

from longspan import CheckpointError, Encoder, InputError
from longspan.executors.reference import ReferenceExecutor

from . import formulas
from .harness import Formula, check, edit_config, save_tensors, texts_of
from .tiny import ENCODER

TASKS = ("retrieval.query", "retrieval.passage", "separation", "text-matching")
INSTRUCTIONS = {"retrieval.query": "q u e r y ", "retrieval.passage": "d o c ", "separation": "", "text-matching": ""}
RANK, ALPHA = 4, 3
FIELDS: dict[str, Any] = {
    "model_type": "xlm-roberta",
    "position_embedding_type": "rotary",
    "rotary_emb_base": 300.0,
    **ENCODER,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "hidden_act": "gelu",
    "lora_adaptations": list(TASKS),
    "lora_rank": RANK,
    "lora_alpha": ALPHA,
    "lora_dropout_p": 0.0,
    "lora_main_params_trainable": False,
    "load_trained_adapters": True,
    "task_instructions": INSTRUCTIONS,
}
MODULES = [
    {"idx": 0, "name": "transformer", "path": "", "type": "custom_st.Transformer", "kwargs": ["task"]},
    {"idx": 1, "name": "pooler", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "normalizer", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]


def adapted_tensors(name: str, n: int, k: int, rank: int, *, table: bool = False) -> dict[str, tuple[int, ...]]:
    """The shapes of a weight [n, k] with its pairs, as torch's parametrizations name them."""
    at, tasks = f"roberta.{name}.parametrizations.weight", len(TASKS)
    left, right = ("lora_A", "lora_B") if table else ("lora_B", "lora_A")
    return {f"{at}.original": (n, k), f"{at}.0.{left}": (tasks, n, rank), f"{at}.0.{right}": (tasks, rank, k)}


def shapes_of(fields: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    width, inner, rank = fields["hidden_size"], fields["intermediate_size"], fields["lora_rank"]

    def vectors(name: str, width: int) -> dict[str, tuple[int, ...]]:
        return {f"roberta.{name}.{ending}": (width,) for ending in ("weight", "bias")}

    shapes = {
        **adapted_tensors("embeddings.word_embeddings", fields["vocab_size"], width, rank, table=True),
        **adapted_tensors("embeddings.token_type_embeddings", fields["type_vocab_size"], width, rank, table=True),
        **vectors("emb_ln", width),
        **adapted_tensors("pooler.dense", width, width, rank),
    }
    for index in range(fields["num_hidden_layers"]):
        at = f"encoder.layers.{index}"
        projections = {"mixer.Wqkv": (3 * width, width), "mixer.out_proj": (width, width)}
        projections |= {"mlp.fc1": (inner, width), "mlp.fc2": (width, inner)}
        for name, (n, k) in projections.items():
            shapes |= adapted_tensors(f"{at}.{name}", n, k, rank)
            shapes[f"roberta.{at}.{name}.bias"] = (n,)
        shapes |= vectors(f"{at}.norm1", width) | vectors(f"{at}.norm2", width)
    return shapes


def saved(folder: Path, dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    """A checkpoint of the original code, with the same tensors each time."""
    fields = {**FIELDS, **changes}
    return save_tensors(folder, fields, shapes_of(fields), dtype)


def saved_as_on_the_hub(folder: Path) -> Path:
    """With the modules and the options of sentence-transformers."""
    saved(folder)
    (folder / "modules.json").write_text(json.dumps(MODULES))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 48, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    options = {"prompts": INSTRUCTIONS, "default_prompt_name": None, "similarity_fn_name": "cosine"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(options))
    (folder / "custom_st.py").write_text("raise RuntimeError('code of a checkpoint was run')\n")
    return folder


# --- the original formula ---------------------------------------------------------------------------------------------


def merged(tensors: Mapping[str, Tensor], fields: Mapping[str, Any], task: str | None) -> dict[str, Tensor]:
    """The weights as the original code computes them for a task, under their usual names."""
    found = {}
    for name, tensor in tensors.items():
        plain = name.removeprefix("roberta.")
        if plain.endswith(".parametrizations.weight.original"):
            weight = tensor
            if task is not None:
                index = fields["lora_adaptations"].index(task)
                pair = [tensors[name.removesuffix("original") + f"0.lora_{side}"][index] for side in "AB"]
                # Of a linear layer W + B A; of an embedding W + A B.
                product = pair[0] @ pair[1] if "_embeddings." in name else pair[1] @ pair[0]
                weight = weight + product * (fields["lora_alpha"] / fields["lora_rank"])
            found[plain.removesuffix(".parametrizations.weight.original") + ".weight"] = weight
        else:
            found[plain] = tensor
    return found


def of_task(task: str | None) -> Formula:
    def forward(tensors: Mapping[str, Tensor], fields: Mapping[str, Any], ids: Tensor) -> Tensor:
        weights, heads, eps = merged(tensors, fields, task), fields["num_attention_heads"], fields["layer_norm_eps"]
        inverse = formulas.inverse_frequencies(fields["rotary_emb_base"], fields["hidden_size"] // heads)
        x = weights["embeddings.word_embeddings.weight"][ids] + weights["embeddings.token_type_embeddings.weight"][0]
        x = formulas.layer_norm(weights, "emb_ln", x, eps)
        for index in range(fields["num_hidden_layers"]):
            at = f"encoder.layers.{index}"
            q, k, v = (
                formulas.heads_of(part, heads) for part in formulas.linear(weights, f"{at}.mixer.Wqkv", x).chunk(3, -1)
            )
            context = formulas.attention(formulas.rotated(q, inverse), formulas.rotated(k, inverse), v)
            x = formulas.layer_norm(
                weights, f"{at}.norm1", x + formulas.linear(weights, f"{at}.mixer.out_proj", context), eps
            )
            hidden = functional.gelu(formulas.linear(weights, f"{at}.mlp.fc1", x))
            x = formulas.layer_norm(weights, f"{at}.norm2", x + formulas.linear(weights, f"{at}.mlp.fc2", hidden), eps)
        return x

    return Formula(forward)


def vectors_of(folder: Path, task: str | None, texts: list[str]) -> Any:
    """Unit mean vectors in float64."""
    means = np.stack([matrix.mean(0) for matrix in of_task(task).token_vectors(folder, torch.float64, texts)])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


TEXTS = texts_of((1, 3, 20, 60))


def close(ours: Any, theirs: Any) -> bool:
    """In float32."""
    return bool(np.abs(np.asarray(ours) - theirs).max() < 2e-6)


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [None, *TASKS], ids=lambda task: f"task {task}" if task else "no task")
def test_tasks(tmp_path: Path, task: str | None) -> None:
    check(saved(tmp_path), of_task(task), task=task)


CONFIGS: dict[str, dict[str, Any]] = {
    "another rank": {"lora_rank": 17, "lora_alpha": 8.5},
    "two types": {"type_vocab_size": 2},
    "wide": {"hidden_size": 264, "intermediate_size": 300, "num_hidden_layers": 1},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configs(tmp_path: Path, name: str) -> None:
    check(saved(tmp_path, **CONFIGS[name]), of_task("separation"), task="separation")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16 weights", "bfloat16 weights"])
def test_dtypes(tmp_path: Path, dtype: torch.dtype) -> None:
    check(saved(tmp_path, dtype), of_task("text-matching"), task="text-matching")


def test_reference_backend(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    encoder = Encoder(folder, backend="reference")
    assert isinstance(encoder._pipeline.executor, ReferenceExecutor)
    theirs = vectors_of(folder, "separation", TEXTS)
    assert close(encoder.encode(TEXTS, task="separation", normalize_embeddings=True), theirs)


# --- the public face --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_as_on_the_hub(tmp_path_factory.mktemp("hub"))


@pytest.fixture(scope="module")
def encoder(hub: Path) -> Encoder:
    return Encoder(hub)


def prompted(task: str) -> list[str]:
    return [INSTRUCTIONS[task] + text for text in TEXTS]


@pytest.mark.parametrize("task", TASKS)
def test_a_task_brings_its_instruction(encoder: Encoder, hub: Path, task: str) -> None:
    assert close(encoder.encode(TEXTS, task=task), vectors_of(hub, task, prompted(task)))
    assert close(encoder.encode(TEXTS, task=task, prompt_name=task), vectors_of(hub, task, prompted(task)))
    assert close(encoder.encode(TEXTS, task=task, prompt="x "), vectors_of(hub, task, ["x " + text for text in TEXTS]))
    assert close(encoder.encode(TEXTS, task=task, prompt=""), vectors_of(hub, task, TEXTS))


def test_without_a_task(encoder: Encoder, hub: Path) -> None:
    """The weights alone, and no prompt, as the original code has it."""
    assert close(encoder.encode(TEXTS), vectors_of(hub, None, TEXTS))


def test_queries_and_documents(encoder: Encoder, hub: Path) -> None:
    queries = vectors_of(hub, "retrieval.query", prompted("retrieval.query"))
    documents = vectors_of(hub, "retrieval.passage", prompted("retrieval.passage"))
    assert close(encoder.encode_query(TEXTS), queries)
    assert close(encoder.encode_document(TEXTS), documents)
    assert close(encoder.encode(TEXTS, task="query"), queries)
    assert close([result.vector for result in encoder.encode_chunks(TEXTS)], documents)
    assert close([result.vector for result in encoder.encode_chunks(TEXTS, task="query")], queries)


def test_streams(encoder: Encoder, hub: Path) -> None:
    ours = list(encoder.stream(iter(TEXTS), task="separation"))
    assert close(ours, vectors_of(hub, "separation", TEXTS))
    assert close(list(encoder.stream(iter(TEXTS))), vectors_of(hub, None, TEXTS))
    chunks = list(encoder.stream(iter(TEXTS), chunk_tokens=16))
    expected = [chunk for result in encoder.encode_chunks(TEXTS, chunk_tokens=16) for chunk in result.vectors]
    assert (np.stack([chunk.vector for chunk in chunks]) == np.stack(expected)).all()


def test_tasks_share_the_weights(encoder: Encoder) -> None:
    assert len({id(pipeline.executor) for pipeline in encoder._routing.pipelines}) == 1
    assert encoder.tasks == ("query", "document", *TASKS)
    assert encoder.prompts == {"query": "", "document": "", **INSTRUCTIONS}


def test_same_text_same_bits(encoder: Encoder) -> None:
    """Whatever ran before, and in whatever company; tasks differ."""
    texts = texts_of()
    alone = {task: np.stack([encoder.encode(text, task=task) for text in texts]) for task in (None, *TASKS)}
    for task in (*reversed(TASKS), None):
        assert (encoder.encode(texts, task=task) == alone[task]).all()
    for one, other in itertools.combinations(alone.values(), 2):
        assert np.abs(one - other).max() > 1e-3


def test_calibration_for_a_task(hub: Path) -> None:
    encoder = Encoder(hub)
    encoder.calibrate(TEXTS, task="separation")
    vectors = encoder.encode(TEXTS, task="separation")
    (ranges,) = encoder.ranges.values()
    assert (ranges.low == vectors.min(0)).all()
    assert (ranges.high == vectors.max(0)).all()


@pytest.mark.parametrize("task", ["retrieval", "classification", ""])
def test_unknown_tasks(encoder: Encoder, task: str) -> None:
    known = ", ".join(map(repr, ("query", "document", *TASKS)))
    message = re.escape(f"there is no task {task!r}; known are {known}")
    calls = (encoder.encode, encoder.encode_chunks, encoder.stream, encoder.calibrate)
    for call in calls:
        with pytest.raises(InputError, match=message):
            call(TEXTS, task=task)


def test_without_tasks_of_retrieval(tmp_path: Path) -> None:
    """Queries and documents then are what a call without a task is."""
    names = ["a", "b", "c", "d"]
    encoder = Encoder(saved(tmp_path, lora_adaptations=names, task_instructions=None))
    plain = encoder.encode(TEXTS)
    assert (encoder.encode_query(TEXTS) == plain).all()
    assert (encoder.encode_document(TEXTS) == plain).all()
    assert (encoder.encode(TEXTS, task="b") != plain).any()


def test_a_plain_folder_has_the_instructions_too(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    encoder = Encoder(folder)
    theirs = vectors_of(folder, "retrieval.query", prompted("retrieval.query"))
    assert close(encoder.encode_query(TEXTS, normalize_embeddings=True), theirs)


def test_prompts_can_be_changed(hub: Path) -> None:
    encoder = Encoder(hub, prompts={"retrieval.query": "x "}, default_prompt_name="retrieval.passage")
    theirs = vectors_of(hub, "retrieval.query", ["x " + text for text in TEXTS])
    assert close(encoder.encode_query(TEXTS), theirs)
    assert close(encoder.encode(TEXTS, task="separation"), vectors_of(hub, "separation", TEXTS))
    assert close(encoder.encode(TEXTS), vectors_of(hub, None, prompted("retrieval.passage")))


@pytest.mark.parametrize("kind", ["plain", "hub"])
def test_saved_and_pickled(tmp_path: Path, kind: str) -> None:
    folder = (saved if kind == "plain" else saved_as_on_the_hub)(tmp_path / "source")
    encoder = Encoder(folder, prompts={"separation": "s "})
    encoder.max_seq_length = 90
    encoder.save(tmp_path / "copy")
    assert (tmp_path / "copy" / "custom_st.py").exists() == (kind == "hub")
    for other in (Encoder(tmp_path / "copy"), pickle.loads(pickle.dumps(encoder))):
        assert other.tasks == encoder.tasks
        assert other.prompts == encoder.prompts
        assert other.max_seq_length == 90
        for task in (None, *TASKS):
            assert (other.encode(TEXTS, task=task) == encoder.encode(TEXTS, task=task)).all()


def test_other_backends_know_no_tasks(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = AutoModel.from_config(AutoConfig.from_pretrained(hub))
    monkeypatch.setattr(AutoModel, "from_pretrained", lambda *_, **__: own)
    encoder = Encoder(hub, backend="transformers")
    with pytest.raises(InputError, match="without the adaptation for a task"):
        encoder.encode(TEXTS, task="separation")


# --- damage -----------------------------------------------------------------------------------------------------------


def adapted_names(folder: Path) -> Iterator[str]:
    yield from (name for name in load_file(folder / "model.safetensors") if "lora_" in name and "pooler" not in name)


def test_every_pair_is_needed(tmp_path: Path) -> None:
    folder = saved(tmp_path, num_hidden_layers=1)
    tensors = load_file(folder / "model.safetensors")
    for missing in list(adapted_names(folder)):
        save_file({name: tensor for name, tensor in tensors.items() if name != missing}, folder / "model.safetensors")
        with pytest.raises(CheckpointError, match=re.escape(missing)):
            Encoder(folder)


def test_every_pair_has_its_shape(tmp_path: Path) -> None:
    folder = saved(tmp_path, num_hidden_layers=1)
    tensors = load_file(folder / "model.safetensors")
    for wrong in list(adapted_names(folder)):
        save_file({**tensors, wrong: tensors[wrong][:3].contiguous()}, folder / "model.safetensors")
        with pytest.raises(CheckpointError, match=re.escape(wrong)):
            Encoder(folder)


def test_another_number_of_tasks(tmp_path: Path) -> None:
    folder = edit_config(saved(tmp_path), lora_adaptations=["a", "b"], task_instructions=None)
    with pytest.raises(CheckpointError, match="lora_A"):
        Encoder(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora_adaptations": "query"}, "'lora_adaptations' is 'query', expected a list of strings."),
        ({"lora_adaptations": ["a", "a", "b", "c"]}, "'lora_adaptations' must be a list of tasks, each once."),
        ({"lora_adaptations": ["a", 1]}, "'lora_adaptations' is ['a', 1], expected a list of strings."),
        ({"lora_rank": 0}, "'lora_rank' is 0, expected a positive integer."),
        ({"lora_rank": "4"}, "'lora_rank' is '4', expected a positive integer."),
        ({"lora_alpha": "1"}, "'lora_alpha' is '1', expected a number."),
        ({"lora_alpha": float("nan")}, "'lora_alpha' is nan, expected a finite number of at least 0."),
        ({"load_trained_adapters": 1}, "'load_trained_adapters' is 1, expected true or false."),
        ({"task_instructions": ["a"]}, "'task_instructions' is ['a'], expected an object."),
        ({"task_instructions": {"separation": 1}}, "'task_instructions.separation' is 1, expected a string."),
        (
            {"task_instructions": {"sorting": "x"}},
            "'task_instructions.sorting' is not among the 'lora_adaptations' (retrieval.query, retrieval.passage,",
        ),
    ],
)
def test_config_errors(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = edit_config(saved(tmp_path), **changes)
    with pytest.raises(CheckpointError, match=re.escape(f"{folder / 'config.json'}: field {message}")):
        Encoder(folder)


@pytest.mark.parametrize("changes", [{"lora_adaptations": None}, {"load_trained_adapters": False}])
def test_adaptations_that_are_not_declared_are_left_out(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = edit_config(saved(tmp_path), **changes)
    encoder = Encoder(folder)
    assert encoder.tasks == ()
    assert close(encoder.encode(TEXTS, normalize_embeddings=True), vectors_of(folder, None, TEXTS))


def test_code_of_its_own_without_adaptations_is_refused(tmp_path: Path) -> None:
    folder = edit_config(saved_as_on_the_hub(tmp_path), lora_adaptations=None)
    with pytest.raises(CheckpointError, match=re.escape("'custom_st.Transformer', code of its own, which is not run")):
        Encoder(folder)
