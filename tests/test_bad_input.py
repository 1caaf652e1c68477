"""Bad input: each kind gives a clear error that names the thing, and odd but good input gives vectors."""

from __future__ import annotations

import json
import re
import shutil
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longspan import (
    CheckpointError,
    CheckpointNotFoundError,
    Encoder,
    InputError,
    InputTypeError,
    LongspanError,
    LongTextWarning,
)


@pytest.fixture(scope="module")
def encoder(minilm: Path) -> Encoder:
    return Encoder(minilm)


@pytest.fixture
def folder(minilm: Path, tmp_path: Path) -> Path:
    """A copy of the model that a test may damage; the weights are a link to the real ones."""
    copy = tmp_path / "model"
    shutil.copytree(minilm, copy, ignore=shutil.ignore_patterns("model.safetensors"))
    (copy / "model.safetensors").symlink_to(minilm / "model.safetensors")
    return copy


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# --- the folder -------------------------------------------------------------------------------------------------------


def test_missing_folder(tmp_path: Path) -> None:
    for name in (tmp_path / "absent", str(tmp_path / "absent"), "./absent"):
        with pytest.raises(CheckpointNotFoundError, match=r"absent does not exist"):
            Encoder(name)
    with pytest.raises(FileNotFoundError):
        Encoder(tmp_path / "absent")
    with pytest.raises(CheckpointNotFoundError, match=r"'no/such-model' .*local_files_only is set"):
        Encoder("no/such-model", cache_folder=tmp_path, local_files_only=True)
    with pytest.raises(CheckpointNotFoundError, match="name is empty"):
        Encoder("")
    with pytest.raises(CheckpointNotFoundError, match="'what is this' is neither a folder nor a hub id"):
        Encoder("what is this")


def test_folder_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(CheckpointError, match=re.escape(f"{tmp_path} is not a model")):
        Encoder(tmp_path)
    with pytest.raises(CheckpointError, match=r"notes\.txt is a file"):
        Encoder(tmp_path / "notes.txt")


@pytest.mark.parametrize("size", [0, 5, 1000, 1_000_000, 90_868_375])
def test_truncated_weights(folder: Path, minilm: Path, size: int) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(whole[:size])
    with pytest.raises(CheckpointError, match=re.escape(str(path)) + " is (truncated|empty)"):
        Encoder(folder)


def test_corrupt_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.unlink()
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    good = struct.pack("<Q", len(header)) + header + bytes(8)
    for content, reason in (
        (b"\xff" * 100, "not a safetensors file"),
        (struct.pack("<Q", 50) + b"{" * 50, "not JSON"),
        (good + b"more", "4 bytes after its last tensor"),
        (good.replace(b'"shape": [2]', b'"shape": [3]'), "tensor 'a' .* 8 bytes, but F32 .* takes 12"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (good, "no tensor 'embeddings.word_embeddings.weight'"),
    ):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=f"{re.escape(str(path))}.*{reason}"):
            Encoder(folder)


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointNotFoundError, match=r"model\.safetensors does not exist"):
        Encoder(folder)
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(CheckpointError, match="torch does not load it with weights_only"):
        Encoder(folder)


def test_unknown_model_type(folder: Path) -> None:
    edit_json(folder / "config.json", model_type="hyperbert")
    with pytest.raises(
        CheckpointError,
        match=r"config\.json: field 'model_type' is 'hyperbert', which is not supported; known are .*bert",
    ):
        Encoder(folder)


@pytest.mark.parametrize("name", ["config.json", "modules.json", "tokenizer.json", "sentence_bert_config.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"7", b"[[" * 5000])
def test_damaged_files(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=re.escape(str(folder / name))):
        Encoder(folder)


def test_no_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "vocab.txt"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(CheckpointNotFoundError, match=r"has no tokenizer\.json"):
        Encoder(folder)


def test_weights_of_another_model(folder: Path) -> None:
    edit_json(folder / "config.json", intermediate_size=1024)
    with pytest.raises(CheckpointError, match=r"tensor 'encoder\.layer\.0\..*' has the shape .* expected"):
        Encoder(folder)
    edit_json(folder / "config.json", intermediate_size=1536, num_hidden_layers=7)
    with pytest.raises(CheckpointError, match=r"no tensor 'encoder\.layer\.6"):
        Encoder(folder)


def test_tokenizer_of_another_model(folder: Path) -> None:
    """Its ids lie beyond the embedding table: an error that says so, at the latest when such a token is met."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["zebra"] = 40_000
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(LongspanError, match=r"40000|40001|30522"):
        Encoder(folder).encode(["a", "a zebra"])


# --- the texts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [7, None, b"bytes", 1.5, ["nested"]])
@pytest.mark.parametrize("method", ["encode", "encode_query", "encode_document"])
def test_inputs_that_are_no_strings(encoder: Encoder, method: str, wrong: Any) -> None:
    with pytest.raises(InputTypeError, match=re.escape(f"inputs[2] is {type(wrong).__name__}, expected str")):
        getattr(encoder, method)(["a", "b", wrong])
    with pytest.raises(TypeError):
        getattr(encoder, method)([wrong])


@pytest.mark.parametrize("wrong", [7, None, b"bytes", object()])
def test_inputs_that_are_no_list(encoder: Encoder, wrong: Any) -> None:
    with pytest.raises(InputTypeError, match=f"inputs is {type(wrong).__name__}, expected a list of str"):
        encoder.encode(wrong)


def test_lone_surrogates(encoder: Encoder) -> None:
    with pytest.raises(InputError, match=re.escape("inputs[1] has a lone surrogate, U+D800, at position 3")):
        encoder.encode(["fine", "abc\ud800"])
    with pytest.raises(InputError, match="lone surrogate, U\\+DFFF"):
        encoder.encode("\udfff")
    with pytest.raises(InputError, match=r"prompt.*lone surrogate"):
        encoder.encode("a", prompt="\ud800")
    with pytest.raises(InputError, match=re.escape("documents has a lone surrogate")):
        encoder.encode_chunks("\ud800")


@pytest.mark.parametrize("text", ["", " ", "\n\t \u3000\u2028", "\0", "\0\0\0", "a\0b", "\ufeff", "\u200b", "\x07"])
def test_odd_texts_have_vectors(encoder: Encoder, text: str) -> None:
    vector = encoder.encode(text)
    assert vector.shape == (384,)
    np.testing.assert_allclose(np.linalg.norm(vector), 1, atol=1e-6)
    assert encoder.encode_chunks(text).vector.tobytes() == vector.tobytes()


def test_empty_list(encoder: Encoder) -> None:
    assert encoder.encode([]).shape == (0, 384)
    assert encoder.encode([], truncate_dim=7).shape == (0, 7)
    assert encoder.encode_query([]).shape == (0, 384)
    assert encoder.similarity(encoder.encode([]), encoder.encode(["a"])).shape == (0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["The quick brown fox jumps over the lazy dog.\n", "x", " "])
def test_ten_megabytes(minilm: Path, unit: str) -> None:
    """Cut to its start, it costs what reading it costs: seconds, on a busy machine too."""
    encoder = Encoder(minilm, long_text="truncate")
    text = (unit * (10_000_000 // len(unit) + 1))[:10_000_000]
    began = time.perf_counter()
    if unit.strip() and len(unit) > 1:
        with pytest.warns(LongTextWarning, match="1 of 1 texts"):
            vector = encoder.encode(text)
        assert vector.tobytes() == Encoder(minilm).encode(text[: 25 * len(unit)] + "The quick brown fox").tobytes()
    else:
        vector = encoder.encode(text)  # one unknown word, or none
    seconds = time.perf_counter() - began
    assert np.isfinite(vector).all()
    assert seconds < 30, f"{seconds:.1f} s"


# --- the options ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu"}, "device is 'tpu', expected 'cpu', 'cuda' or 'cuda:N'"),
        ({"weights": "int3"}, "weights is 'int3', expected"),
        ({"backend": "magic"}, "backend is 'magic', expected"),
        ({"threads": 0}, "threads is 0, expected an integer from 1"),
        ({"threads": 1.5}, "threads is 1.5"),
        ({"long_text": "cut"}, "long_text is 'cut', expected one of window, truncate, error"),
        ({"truncate_dim": 385}, "truncate_dim is 385, expected an integer from 1 to the model's 384"),
        ({"truncate_dim": 0}, "truncate_dim is 0"),
        ({"truncate_dim": 2.0}, "truncate_dim is 2.0"),
        ({"max_seq_length": 513}, "max_seq_length is 513, expected an integer from 1 to 512"),
        ({"max_seq_length": 2}, "max_seq_length 2 leaves no room"),
        ({"similarity_fn_name": "closeness"}, "similarity_fn_name is 'closeness', expected one of cosine, dot"),
        ({"default_prompt_name": "absent"}, "no prompt named 'absent'; known are 'query', 'document'"),
        ({"prompts": {"query": 7}}, "prompts['query'] is int, expected str"),
        ({"prompts": {"query": "\ud800"}}, "prompts['query'] has a lone surrogate"),
        ({"prompts": "query"}, "prompts"),
    ],
)
def test_constructor_options(minilm: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        Encoder(minilm, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"truncate_dim": 385}, "truncate_dim is 385, expected an integer from 1 to the model's 384"),
        ({"truncate_dim": -1}, "truncate_dim is -1"),
        ({"prompt_name": "absent"}, "there is no prompt named 'absent'; known are 'query', 'document'"),
        ({"prompt": 7}, "prompt is int, expected str"),
        ({"prompt": "word " * 300}, "leaves no room for text beside 300 prompt tokens"),
        ({"output_value": "logits"}, "output_value is 'logits'"),
        ({"precision": "int7"}, "precision is 'int7'"),
        ({"device": "cuda"}, "device is 'cuda', but this encoder is on 'cpu'"),
    ],
)
def test_call_options(encoder: Encoder, options: dict[str, Any], message: str) -> None:
    for inputs in ("a", ["a", "b"]):
        with pytest.raises(InputError, match=re.escape(message)):
            encoder.encode(inputs, **options)


@pytest.mark.parametrize("inputs", [[], ["a"]])
def test_options_are_checked_before_the_texts(encoder: Encoder, inputs: list[str]) -> None:
    wrong: dict[str, Any] = {"output_value": "logits"}
    with pytest.raises(InputError, match="output_value"):
        encoder.encode(inputs, **wrong)


@pytest.mark.parametrize("texts", ["two words", None, 7, ["a", None], {"a": "b"}])
def test_calibration_texts(encoder: Encoder, texts: Any) -> None:
    with pytest.raises(InputTypeError, match=r"texts(\[1\])? is \w+, expected"):
        encoder.calibrate(texts)
    with pytest.raises(InputError, match="at least 2 texts, got 1"):
        encoder.calibrate(["one"])
    with pytest.raises(InputError, match=r"call encoder\.calibrate"):
        encoder.encode("a", precision="int8")


def test_unknown_keywords(minilm: Path, encoder: Encoder) -> None:
    unknown: dict[str, Any] = {"normalise": True}
    with pytest.raises(TypeError, match="normalise"):
        Encoder(minilm, **unknown)
    for method in (encoder.encode, encoder.encode_query, encoder.encode_document, encoder.encode_chunks):
        with pytest.raises(TypeError, match="normalise"):
            method("a", **unknown)


def test_similarity(encoder: Encoder) -> None:
    with pytest.raises(InputError, match="a has 384 dimensions and b has 3"):
        encoder.similarity(encoder.encode("a"), np.zeros((2, 3)))
    with pytest.raises(InputError, match="pairs need the same"):
        encoder.similarity_pairwise(np.zeros((2, 3)), np.zeros((1, 3)))
