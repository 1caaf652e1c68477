"""Damaged folders: the complaint names the file and the field."""

from __future__ import annotations

from pathlib import Path

import pytest

from longspan.checkpoint.recipe import read_recipe
from longspan.errors import CheckpointError, CheckpointNotFoundError

from .folders import OLD_MODULES, make_old, update, write

BAD_FIELDS: list[tuple[str, dict[str, object], str]] = [
    ("1_Pooling/config.json", {"pooling_mode": "median"}, "'pooling_mode' is 'median'; known are cls"),
    ("1_Pooling/config.json", {"pooling_mode": []}, "'pooling_mode' must be"),
    ("1_Pooling/config.json", {"pooling_mode": 3}, "'pooling_mode' must be .* not a number"),
    ("1_Pooling/config.json", {"pooling_mode": [["cls"]]}, "'pooling_mode' is"),
    (
        "1_Pooling/config.json",
        {"pooling_mode_cls_token": "yes"},
        "'pooling_mode_cls_token' is .*, expected true or false",
    ),
    ("1_Pooling/config.json", {"include_prompt": 0}, "'include_prompt' is .*, expected true or false"),
    (
        "1_Pooling/config.json",
        {"word_embedding_dimension": "16"},
        "'word_embedding_dimension' is .*, expected a positive",
    ),
    ("1_Pooling/config.json", {"pooling_mode": ["cls", "max"]}, "2_Dense.*'in_features' is 16, .* vectors of 32"),
    ("2_Dense/config.json", {"in_features": 24}, "'in_features' is 24, but the module before it gives vectors of 16"),
    ("2_Dense/config.json", {"in_features": None}, "'in_features' is missing"),
    ("2_Dense/config.json", {"out_features": True}, "'out_features' is .*, expected a positive integer"),
    ("2_Dense/config.json", {"out_features": 0}, "'out_features' is .*, expected a positive integer"),
    ("2_Dense/config.json", {"out_features": 9}, "3_LayerNorm.*'dimension' is 8"),
    ("2_Dense/config.json", {"activation_function": "torch.nn.Mish"}, "is 'torch.nn.Mish'; known are torch.nn.Ident"),
    ("2_Dense/config.json", {"activation_function": "mine.Tanh"}, "is 'mine.Tanh'; known"),
    ("2_Dense/config.json", {"activation_function": 1}, "'activation_function' is .*, expected a string"),
    ("2_Dense/config.json", {"module_input_name": "token_embeddings"}, "'module_input_name' is 'token_embeddings'"),
    ("3_LayerNorm/config.json", {"dimension": None}, "'dimension' is missing"),
    ("4_Normalize/config.json", {"module_output_name": "other"}, "'module_output_name' is 'other'"),
    ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "'model_type' is 'SparseEncoder'"),
    ("config_sentence_transformers.json", {"prompts": ["a"]}, "'prompts' is .*, expected an object"),
    ("config_sentence_transformers.json", {"prompts": {"a": 1}}, "'prompts.a' is .*, expected a string"),
    ("config_sentence_transformers.json", {"default_prompt_name": "z"}, "'default_prompt_name' is 'z'"),
    ("config_sentence_transformers.json", {"truncate_dim": -1}, "'truncate_dim' is .*, expected a positive"),
    ("config_sentence_transformers.json", {"similarity_fn_name": 1}, "'similarity_fn_name' is .*, expected a string"),
    ("sentence_bert_config.json", {"max_seq_length": "512"}, "'max_seq_length' is .*, expected a positive integer"),
    ("sentence_bert_config.json", {"do_lower_case": 1}, "'do_lower_case' is .*, expected true or false"),
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
        ("config.json", {"max_position_embeddings": "64"}, "'max_position_embeddings' is .*, expected a positive"),
        ("config.json", {"single_vector_type": "cls_add_mean"}, "'single_vector_type' is 'cls_add_mean'; only 'mean'"),
        ("config.json", {"architectures": "BertModel"}, "'architectures' is .*, expected a list"),
        (
            "config.json",
            {"architectures": ["XForCausalLM"], "is_causal": "no"},
            "'is_causal' is .*, expected true or false",
        ),
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
        ([entry(0, "CNN")], "'sentence_transformers.models.CNN' is not supported; supported are Transformer"),
        ([entry(0, "BoW")], "BoW' is not supported"),
        ([entry(0, "Transformer"), entry(1, "LSTM")], "LSTM' is not supported"),
        (
            [entry(0, "Transformer", type="custom_st.Transformer")],
            "'0.type' is 'custom_st.Transformer', code of its own",
        ),
        ([], "has no Transformer module"),
        ([entry(0, "Transformer")], "has no Pooling module"),
        ([entry(0, "Pooling")], "one Transformer or StaticEmbedding must come first"),
        ([entry(0, "Transformer"), entry(1, "Transformer")], "one Transformer or StaticEmbedding must come first"),
        ([entry(0, "Transformer"), entry(1, "Dense")], "one Pooling must follow"),
        ([entry(0, "Transformer"), entry(1, "Pooling"), entry(2, "Pooling")], "one Pooling must follow"),
        ([entry(0, "Transformer"), entry(0, "Pooling")], "'1.name' is '0', which an earlier entry has too"),
        ([entry(0, "Transformer", type=None)], "'0.type' is missing"),
        ([entry(0, "Transformer", path=None)], "'0.path' is missing"),
        ([entry(0, "Transformer", path=7)], "'0.path' is .*, expected a string"),
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
    with pytest.raises(CheckpointNotFoundError, match=r"none of config\.json, modules\.json"):
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
