"""Recipes of folders that sentence-transformers wrote, of older ones, and of damaged ones."""

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
from transformers import BertConfig, BertModel, BertTokenizerFast

from longspan.checkpoint.recipe import (
    DenseModule,
    LayerNormModule,
    NormalizeModule,
    PoolingMode,
    read_recipe,
)
from longspan.checkpoint.tensors import Tensors
from longspan.errors import CheckpointError, CheckpointNotFoundError

WIDTH = 16
MODES: tuple[PoolingMode, ...] = get_args(PoolingMode)
OLD_MODULES = {
    "Transformer": "",
    "Pooling": "1_Pooling",
    "Dense": "2_Dense",
    "LayerNorm": "3_LayerNorm",
    "Normalize": "4_Normalize",
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random BERT as transformers saves it."""
    folder = tmp_path_factory.mktemp("plain")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]
    (folder / "vocab.txt").write_text("\n".join(words))
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(plain: Path, tmp_path: Path) -> Path:
    """A copy of the plain folder that a test may change."""
    return Path(shutil.copytree(plain, tmp_path / "model"))


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def update(path: Path, **fields: object) -> None:
    """Sets fields of a JSON file; None takes one away."""
    value: dict[str, object] = json.loads(path.read_text()) if path.exists() else {}
    value.update(fields)
    write(path, {name: field for name, field in value.items() if field is not None})


def make_old(folder: Path, *names: str, **pooling: object) -> Path:
    """Writes the files of sentence-transformers 2 around a transformer."""
    names = names or ("Transformer", "Pooling")
    modules = [
        {"idx": i, "name": str(i), "path": OLD_MODULES[name], "type": f"sentence_transformers.models.{name}"}
        for i, name in enumerate(names)
    ]
    write(folder / "modules.json", modules)
    write(folder / "sentence_bert_config.json", {"max_seq_length": 48, "do_lower_case": False})
    write(folder / "1_Pooling/config.json", {"word_embedding_dimension": WIDTH, **pooling})
    activation = "torch.nn.modules.activation.Tanh"
    dense = {"in_features": WIDTH, "out_features": 8, "bias": True, "activation_function": activation}
    write(folder / "2_Dense/config.json", dense)
    write(folder / "3_LayerNorm/config.json", {"dimension": 8})
    return folder


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
    assert recipe.transformer == tmp_path
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
    assert recipe.transformer == tmp_path / "0_Transformer"
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
    assert recipe.transformer == plain
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
    with pytest.raises(CheckpointError, match=f"{place} holds a chat template"):
        read_recipe(folder)
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


BAD_FIELDS: list[tuple[str, dict[str, object], str]] = [
    ("1_Pooling/config.json", {"pooling_mode": "median"}, "'pooling_mode' is 'median'; known are cls"),
    ("1_Pooling/config.json", {"pooling_mode": []}, "'pooling_mode' must be"),
    ("1_Pooling/config.json", {"pooling_mode": 3}, "'pooling_mode' must be .* not a number"),
    ("1_Pooling/config.json", {"pooling_mode": [["cls"]]}, "'pooling_mode' is"),
    ("1_Pooling/config.json", {"pooling_mode_cls_token": "yes"}, "'pooling_mode_cls_token' must be true or false"),
    ("1_Pooling/config.json", {"include_prompt": 0}, "'include_prompt' must be true or false"),
    ("1_Pooling/config.json", {"word_embedding_dimension": "16"}, "'word_embedding_dimension' must be a positive"),
    ("1_Pooling/config.json", {"pooling_mode": ["cls", "max"]}, "2_Dense.*'in_features' is 16, .* vectors of 32"),
    ("2_Dense/config.json", {"in_features": 24}, "'in_features' is 24, but the module before it gives vectors of 16"),
    ("2_Dense/config.json", {"in_features": None}, "'in_features' is missing"),
    ("2_Dense/config.json", {"out_features": True}, "'out_features' must be a positive integer, not a boolean"),
    ("2_Dense/config.json", {"out_features": 0}, "'out_features' must be a positive integer, not 0"),
    ("2_Dense/config.json", {"out_features": 9}, "3_LayerNorm.*'dimension' is 8"),
    ("2_Dense/config.json", {"activation_function": "torch.nn.Mish"}, "is 'torch.nn.Mish'; known are torch.nn.Ident"),
    ("2_Dense/config.json", {"activation_function": "mine.Tanh"}, "is 'mine.Tanh'; known"),
    ("2_Dense/config.json", {"activation_function": 1}, "'activation_function' must be a string"),
    ("2_Dense/config.json", {"module_input_name": "token_embeddings"}, "'module_input_name' is 'token_embeddings'"),
    ("3_LayerNorm/config.json", {"dimension": None}, "'dimension' is missing"),
    ("4_Normalize/config.json", {"module_output_name": "other"}, "'module_output_name' is 'other'"),
    ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "'model_type' is 'SparseEncoder'"),
    ("config_sentence_transformers.json", {"prompts": ["a"]}, "'prompts' must be an object, not a list"),
    ("config_sentence_transformers.json", {"prompts": {"a": 1}}, "'prompts.a' must be a string"),
    ("config_sentence_transformers.json", {"default_prompt_name": "z"}, "'default_prompt_name' is 'z'"),
    ("config_sentence_transformers.json", {"truncate_dim": -1}, "'truncate_dim' must be a positive"),
    ("config_sentence_transformers.json", {"similarity_fn_name": 1}, "'similarity_fn_name' must be a string"),
    ("sentence_bert_config.json", {"max_seq_length": "512"}, "'max_seq_length' must be a positive integer"),
    ("sentence_bert_config.json", {"do_lower_case": 1}, "'do_lower_case' must be true or false"),
    ("sentence_bert_config.json", {"tokenizer_args": {"do_lower_case": True}}, "'tokenizer_args.do_lower_case' is not"),
    ("sentence_bert_config.json", {"config_kwargs": {"is_decoder": True}}, "'config_kwargs.is_decoder' is not"),
    ("sentence_bert_config.json", {"tokenizer_args": {"model_max_length": "x"}}, "'tokenizer_args.model_max_length'"),
    ("sentence_bert_config.json", {"query_length": 32}, "'query_length' is not supported"),
    ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "'transformer_task' is 'fill-mask'"),
    ("sentence_bert_config.json", {"modality_config": {"image": {}}}, "'modality_config.text' is missing"),
    ("sentence_bert_config.json", {"modality_config": {"message": {}}}, "'modality_config.message' asks for"),
    (
        "sentence_bert_config.json",
        {"modality_config": {"text": {"method": "get_text_features"}}},
        "'modality_config.text.method' is 'get_text_features'",
    ),
    (
        "sentence_bert_config.json",
        {"processing_kwargs": {"text": {"add_special_tokens": False}}},
        "'processing_kwargs.text.add_special_tokens' is False",
    ),
    ("sentence_bert_config.json", {"processing_kwargs": {"common": {"truncation": False}}}, "common.truncation' is"),
]


@pytest.mark.parametrize(("file", "fields", "message"), BAD_FIELDS)
def test_bad_field_is_named(folder: Path, file: str, fields: dict[str, object], message: str) -> None:
    make_old(folder, *OLD_MODULES)
    update(folder / file, **fields)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_recipe(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        ("tokenizer_config.json", {"model_max_length": "many"}, "'model_max_length' must be a number"),
        ("tokenizer_config.json", {"model_max_length": 0}, "'model_max_length' must be at least 1"),
        ("tokenizer_config.json", {"model_max_length": float("nan")}, "'model_max_length' must be at least 1"),
        ("config.json", {"max_position_embeddings": "64"}, "'max_position_embeddings' must be a positive"),
        ("config.json", {"architectures": "BertModel"}, "'architectures' must be a list"),
        ("config.json", {"architectures": ["XForCausalLM"], "is_causal": "no"}, "'is_causal' must be true or false"),
    ],
)
def test_bad_field_of_a_plain_folder(folder: Path, file: str, fields: dict[str, object], message: str) -> None:
    update(folder / file, **fields)
    with pytest.raises(CheckpointError, match=message):
        read_recipe(folder)


@pytest.mark.parametrize(
    "file",
    [
        "modules.json",
        "config.json",
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "config_sentence_transformers.json",
    ],
)
@pytest.mark.parametrize("text", ["", "{", "3", '"x"', '{"a": 1', "\udcff"])
def test_unreadable_json_names_its_file(folder: Path, file: str, text: str) -> None:
    make_old(folder, *OLD_MODULES)
    (folder / file).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(CheckpointError) as caught:
        read_recipe(folder)
    assert str(folder / file) in str(caught.value)


BASE = "sentence_transformers.models."


def entry(place: int, kind: str, **fields: object) -> dict[str, object]:
    return {"idx": place, "name": str(place), "path": OLD_MODULES.get(kind, ""), "type": BASE + kind, **fields}


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ([entry(0, "Asym")], "'sentence_transformers.models.Asym' is not supported; supported are Transformer"),
        ([entry(0, "StaticEmbedding")], "StaticEmbedding' is not supported"),
        ([entry(0, "Transformer"), entry(1, "WeightedLayerPooling")], "WeightedLayerPooling' is not supported"),
        (
            [entry(0, "Transformer", type="custom_st.Transformer")],
            "'0.type' is 'custom_st.Transformer', code of its own",
        ),
        ([], "has no Transformer module"),
        ([entry(0, "Transformer")], "has no Pooling module"),
        ([entry(0, "Pooling")], "one Transformer must come first"),
        ([entry(0, "Transformer"), entry(1, "Transformer")], "one Transformer must come first"),
        ([entry(0, "Transformer"), entry(1, "Dense")], "one Pooling must follow"),
        ([entry(0, "Transformer"), entry(1, "Pooling"), entry(2, "Pooling")], "one Pooling must follow"),
        ([entry(0, "Transformer"), entry(0, "Pooling")], "'1.name' is '0', which an earlier entry has too"),
        ([entry(0, "Transformer", type=None)], "'0.type' is missing"),
        ([entry(0, "Transformer", path=None)], "'0.path' is missing"),
        ([entry(0, "Transformer", path=7)], "'0.path' must be a string"),
        ([entry(0, "Transformer", path="../x")], "a path inside the folder"),
        ([entry(0, "Transformer", path="/etc")], "a path inside the folder"),
        ([3], "entry 0 must be an object"),
    ],
)
def test_bad_modules(folder: Path, modules: list[object], message: str) -> None:
    make_old(folder)
    write(folder / "modules.json", modules)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_recipe(folder)
    assert str(folder / "modules.json") in str(caught.value)


def test_missing_files(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match=r"neither config\.json nor modules\.json"):
        read_recipe(tmp_path / "absent")
    make_old(folder)
    (folder / "1_Pooling/config.json").unlink()
    with pytest.raises(CheckpointNotFoundError, match=r"1_Pooling/config\.json does not exist"):
        read_recipe(folder)
    (folder / "1_Pooling").rmdir()
    with pytest.raises(CheckpointNotFoundError, match=r"1_Pooling does not exist, but .*modules\.json names it"):
        read_recipe(folder)
    make_old(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointNotFoundError, match=r"config\.json does not exist"):
        read_recipe(folder)
