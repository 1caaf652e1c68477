"""Recipes of folders that sentence-transformers wrote, of older ones and of plain ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

from longspan.checkpoint.choices import Choices
from longspan.checkpoint.recipe import (
    DenseModule,
    LayerNormModule,
    NormalizeModule,
    PoolingMode,
    read_recipe,
    read_recipes,
)
from longspan.checkpoint.tensors import Tensors
from longspan.errors import CheckpointError

from .folders import OLD_MODULES, WIDTH, make_old, update, write

MODES: tuple[PoolingMode, ...] = get_args(PoolingMode)


def test_everything_that_sentence_transformers_saves(plain: Path, tmp_path: Path) -> None:
    modules: list[Any] = [
        Transformer(str(plain)),
        Pooling(WIDTH, ["max", "cls"], include_prompt=False),
        Dense(2 * WIDTH, 8, bias=False, activation_function=torch.nn.GELU(), use_residual=True),
        Dense(8, 8, activation_function=None),
        LayerNorm(8),
        Normalize(),
    ]
    prompts = {"query": "ask: ", "title": "t: "}
    model = SentenceTransformer(
        modules=modules, prompts=prompts, default_prompt_name="title", similarity_fn_name="dot", truncate_dim=4
    )
    model.save(str(tmp_path))
    recipe = read_recipe(tmp_path)
    assert recipe.files.folder == tmp_path
    assert recipe.max_seq_length == model.max_seq_length == 64
    assert not recipe.lower_case
    assert recipe.pooling == ("max", "cls")
    assert not recipe.include_prompt
    assert recipe.tail == (
        DenseModule(tmp_path / "2_Dense", 2 * WIDTH, 8, bias=False, activation="gelu", use_residual=True),
        DenseModule(tmp_path / "3_Dense", 8, 8, bias=True, activation="identity", use_residual=False),
        LayerNormModule(tmp_path / "4_LayerNorm", 8, eps=modules[4].norm.eps),
        NormalizeModule(),
    )
    assert dict(recipe.prompts) == model.prompts
    assert recipe.default_prompt_name == "title"
    assert recipe.similarity_fn_name == "dot"
    assert recipe.truncate_dim == 4
    dense = Tensors.open_file(tmp_path / "2_Dense" / "model.safetensors")
    assert set(dense) == {"linear.weight", "residual.weight"}
    assert set(Tensors.open_file(tmp_path / "4_LayerNorm" / "model.safetensors")) == {"norm.weight", "norm.bias"}
    assert isinstance(hash(recipe), int)


@pytest.mark.parametrize("mode", MODES)
def test_every_pooling_mode_in_both_schemas(plain: Path, tmp_path: Path, mode: PoolingMode) -> None:
    module = Pooling(WIDTH, mode)
    module.save_config(str(tmp_path))
    new = json.loads((tmp_path / "config.json").read_text())
    folder = make_old(shutil.copytree(plain, tmp_path / "model"))
    write(folder / "1_Pooling/config.json", new)
    assert read_recipe(folder).pooling == (mode,)
    suffix = {"cls": "cls_token", "lasttoken": "lasttoken", "mean_sqrt_len_tokens": "mean_sqrt_len_tokens"}
    flags = {f"pooling_mode_{suffix.get(other, f'{other}_tokens')}": other == mode for other in MODES}
    make_old(folder, **flags)
    assert read_recipe(folder).pooling == (mode,)


@pytest.mark.parametrize(
    "flags",
    [
        {f"pooling_mode_{name}": True for name in ("lasttoken", "weightedmean_tokens", "mean_sqrt_len_tokens")},
        {f"pooling_mode_{name}": True for name in ("mean_tokens", "max_tokens", "cls_token")},
        {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": False},
        {},
        {"pooling_mode": ["mean", "cls"], "pooling_mode_max_tokens": True},
        {"pooling_mode": ["lasttoken"]},
        {"pooling_mode": ["mean", "mean"]},
    ],
)
def test_several_pooling_modes_as_sentence_transformers_reads_them(folder: Path, flags: dict[str, object]) -> None:
    make_old(folder, **flags)
    theirs = Pooling.load(str(folder), subfolder="1_Pooling").pooling_mode
    assert read_recipe(folder).pooling == ((theirs,) if isinstance(theirs, str) else theirs)


def test_old_schema_with_a_tail(folder: Path) -> None:
    make_old(folder, *OLD_MODULES)
    recipe = read_recipe(folder)
    assert recipe.max_seq_length == 48
    assert recipe.pooling == ("mean",)
    assert recipe.include_prompt
    assert recipe.tail == (
        DenseModule(folder / "2_Dense", WIDTH, 8, bias=True, activation="tanh", use_residual=False),
        LayerNormModule(folder / "3_LayerNorm", 8),
        NormalizeModule(),
    )
    assert recipe.prompts == ()
    assert (recipe.default_prompt_name, recipe.similarity_fn_name, recipe.truncate_dim) == (None, None, None)


def test_transformer_in_its_own_folder(plain: Path, tmp_path: Path) -> None:
    make_old(tmp_path, "Transformer", "Pooling", "Normalize")
    shutil.copytree(plain, tmp_path / "0_Transformer")
    (tmp_path / "4_Normalize").mkdir()
    (tmp_path / "sentence_bert_config.json").rename(tmp_path / "0_Transformer" / "sentence_bert_config.json")
    modules = json.loads((tmp_path / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    write(tmp_path / "modules.json", modules)
    recipe = read_recipe(tmp_path)
    assert recipe.files.folder == tmp_path / "0_Transformer"
    assert recipe.max_seq_length == 48
    assert recipe.tail == (NormalizeModule(),)


def test_dropout_does_nothing(folder: Path) -> None:
    make_old(folder)
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"idx": 2, "name": "2", "path": "2_Dropout", "type": "sentence_transformers.models.Dropout"})
    write(folder / "modules.json", modules)
    assert read_recipe(folder).tail == ()


SETTINGS: list[dict[str, object]] = [
    {},
    {"max_seq_length": None},
    {"max_seq_length": 20},
    {"max_seq_length": 1000},
    {"max_seq_length": 20, "tokenizer_args": {"model_max_length": 30}},
    {"tokenizer_args": {"model_max_length": 90}, "do_lower_case": True},
    {"processor_kwargs": {"model_max_length": 90}, "transformer_task": "feature-extraction"},
]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("tokenizer", [{"model_max_length": 40}, {"model_max_length": 100}, {"model_max_length": None}])
def test_length_is_that_of_sentence_transformers(
    folder: Path, settings: dict[str, object], tokenizer: dict[str, object]
) -> None:
    make_old(folder)
    write(folder / "sentence_bert_config.json", settings)
    update(folder / "tokenizer_config.json", **tokenizer)
    recipe = read_recipe(folder)
    theirs = SentenceTransformer(str(folder), device="cpu").max_seq_length
    assert recipe.max_seq_length == theirs
    assert recipe.lower_case == settings.get("do_lower_case", False)


@pytest.mark.parametrize("fields", [{"max_position_embeddings": -1}, {"model_type": "xlnet"}])
def test_models_without_a_last_position(folder: Path, fields: dict[str, object]) -> None:
    update(folder / "config.json", **fields)
    update(folder / "tokenizer_config.json", model_max_length=100)
    assert read_recipe(folder).max_seq_length == 100


def test_huge_length_is_none(folder: Path) -> None:
    make_old(folder)
    write(folder / "sentence_bert_config.json", {})
    update(folder / "config.json", max_position_embeddings=None)
    for huge in (10**30, 1e30, float("inf")):
        update(folder / "tokenizer_config.json", model_max_length=huge)
        assert read_recipe(folder).max_seq_length is None
    (folder / "tokenizer_config.json").unlink()
    assert read_recipe(folder).max_seq_length is None


def test_length_of_the_tokenizer_call(folder: Path) -> None:
    make_old(folder)
    processing = {"text": {"max_length": 5, "padding": True, "truncation": True}, "image": {"size": 3}}
    update(folder / "sentence_bert_config.json", processing_kwargs=processing)
    tokens = SentenceTransformer(str(folder), device="cpu").preprocess(["a b c d e f g h"])["input_ids"]
    assert read_recipe(folder).max_seq_length == tokens.shape[1] == 5


def test_settings_under_another_name(folder: Path) -> None:
    make_old(folder)
    (folder / "sentence_bert_config.json").write_text("{}")  # says nothing, so the next file is asked
    write(folder / "sentence_xlm-roberta_config.json", {"max_seq_length": 21, "do_lower_case": True})
    recipe = read_recipe(folder)
    assert recipe.max_seq_length == SentenceTransformer(str(folder), device="cpu").max_seq_length == 21
    assert recipe.lower_case


def test_gpt2_calls_its_positions_otherwise(folder: Path) -> None:
    update(folder / "config.json", model_type="gpt2", max_position_embeddings=None, n_positions=33)
    update(folder / "tokenizer_config.json", model_max_length=100)
    assert read_recipe(folder).max_seq_length == 33


def test_plain_folder_is_the_mean(plain: Path) -> None:
    recipe = read_recipe(plain)
    theirs = SentenceTransformer(str(plain), device="cpu")
    assert recipe.files.folder == plain
    assert recipe.max_seq_length == theirs.max_seq_length
    assert recipe.pooling == (theirs[1].pooling_mode,) == ("mean",)
    assert recipe.tail == ()


def test_plain_folder_ignores_files_of_sentence_transformers(folder: Path) -> None:
    make_old(folder, *OLD_MODULES)
    write(folder / "config_sentence_transformers.json", {"prompts": {"query": "q: "}})
    (folder / "modules.json").unlink()
    theirs = SentenceTransformer(str(folder), device="cpu")
    recipe = read_recipe(folder)
    assert recipe.max_seq_length == theirs.max_seq_length == 64
    assert recipe.prompts == ()
    assert theirs.prompts == {"query": "", "document": ""}


@pytest.mark.parametrize(
    ("fields", "mode"),
    [
        ({"architectures": ["LlamaForCausalLM"]}, "lasttoken"),
        ({"architectures": ["LlamaForCausalLM"], "is_causal": True}, "lasttoken"),
        ({"architectures": ["LlamaForCausalLM"], "is_causal": False}, "mean"),
        ({"architectures": ["BertForMaskedLM", "LlamaForCausalLM"]}, "mean"),
        ({"architectures": []}, "mean"),
    ],
)
def test_plain_causal_model_takes_the_last_token(folder: Path, fields: dict[str, object], mode: str) -> None:
    update(folder / "config.json", **fields)
    assert read_recipe(folder).pooling == (mode,)


@pytest.mark.parametrize("place", ["tokenizer_config.json", "chat_template.jinja"])
def test_plain_folder_with_a_chat_template(folder: Path, place: str) -> None:
    if place.endswith(".json"):
        update(folder / place, chat_template="{{ messages }}")
    else:
        (folder / place).write_text("{{ messages }}")
    with pytest.raises(CheckpointError, match=rf"{place} holds a chat template.*pooling=\"lasttoken\""):
        read_recipe(folder)
    assert read_recipes(folder, Choices(pooling=("lasttoken",))).main.pooling == ("lasttoken",)
    make_old(folder)
    assert read_recipe(folder).pooling == ("mean",)


@pytest.mark.parametrize("name", ["Identity", "Tanh", "GELU", "ReLU", "SiLU"])
def test_activations(folder: Path, name: str) -> None:
    make_old(folder, "Transformer", "Pooling", "Dense")
    module = Dense(WIDTH, 8, activation_function=getattr(torch.nn, name)())
    module.save_config(str(folder / "2_Dense"))
    (dense,) = read_recipe(folder).tail
    assert isinstance(dense, DenseModule)
    assert dense.activation == name.lower()


def test_similarity_that_we_lack_counts_as_none(folder: Path) -> None:
    make_old(folder)
    write(folder / "config_sentence_transformers.json", {"similarity_fn_name": "maxsim"})
    assert read_recipe(folder).similarity_fn_name is None


def test_implied_prompts_may_be_the_default(folder: Path) -> None:
    make_old(folder)
    write(folder / "config_sentence_transformers.json", {"default_prompt_name": "query", "prompts": {"x": None}})
    recipe = read_recipe(folder)
    theirs = SentenceTransformer(str(folder), device="cpu")
    assert recipe.default_prompt_name == theirs.default_prompt_name == "query"
    assert recipe.prompts == (("x", ""),)
    assert theirs.prompts["x"] == ""
