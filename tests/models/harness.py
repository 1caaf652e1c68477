"""Tiny random checkpoints, with transformers or a formula in float64 as the judge."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from safetensors.torch import load_file, save_file

from longspan import CheckpointError, Encoder, _csrc
from longspan.batch import Float32
from longspan.checkpoint.config import read_json
from longspan.models import NAMESAKES, build_body
from longspan.models.config import ModelConfig
from longspan.weights import FORMATS, Format

from .formats import Reference, judge_of
from .options import options_of
from .parity import MEASURED, Parity, configuration, smallest_cosine
from .properties import check_bits, check_properties

VOCABULARY = ["<pad>", "<unk>", "<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz0123456789"]
LENGTHS = (0, 1, 2, 5, 9, 12, 13, 47, 64, 90, 131)
SLACK = 4 * float(np.finfo(np.float32).eps)
PREFIX, SUFFIX = (2,), (3,)
NARROW: tuple[Format, ...] = ("bfloat16", "int8")


def texts_of(lengths: Sequence[int] = LENGTHS) -> list[str]:
    """Texts of so many tokens."""
    random = np.random.default_rng(0)
    return [" ".join(random.choice(list(VOCABULARY[4:]), length)) for length in lengths]


def save_tokenizer(folder: Path) -> None:
    """A word for each token, and a special token on each side."""
    words = tokenizers.models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="<unk>")
    tokenizer = tokenizers.Tokenizer(words)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", PREFIX[0]), ("</s>", SUFFIX[0])]
    )
    tokenizer.add_special_tokens(["<pad>", "<unk>", "<s>", "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def save(folder: Path, model: Any, dtype: torch.dtype = torch.float32, **saving: Any) -> Path:
    """Save a model with all weights random, biases and norms too, and a tokenizer."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in (*model.parameters(), *model.buffers()):
            if parameter.ndim == 1 and parameter.is_floating_point():
                parameter += 0.2 * torch.randn_like(parameter)
    model.to(dtype).save_pretrained(folder, **saving)
    save_tokenizer(folder)
    return folder


def ids_of(text: str) -> torch.Tensor:
    """[T] the ids that the tokenizer gives a text."""
    return torch.tensor([*PREFIX, *(VOCABULARY.index(word) for word in text.split()), *SUFFIX])


def edit_config(folder: Path, **changes: Any) -> Path:
    """Change fields of a saved config; None removes one."""
    path = folder / "config.json"
    fields = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in fields.items() if value is not None}))
    return folder


def edit_tensors(folder: Path, rename: Callable[[str], str]) -> Path:
    """Give the tensors of a checkpoint other names."""
    tensors = load_file(folder / "model.safetensors")
    renamed = {rename(name): tensor for name, tensor in tensors.items()}
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def save_tensors(
    folder: Path, fields: Mapping[str, Any], shapes: Mapping[str, Sequence[int]], dtype: torch.dtype = torch.float32
) -> Path:
    """Save a config, random tensors of these shapes, norms' weights around 1, and a tokenizer."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, shape in shapes.items():
        values = torch.randn(*shape, generator=generator) * (0.15 if len(shape) > 1 else 0.2)
        tensors[name] = (values + (len(shape) == 1 and name.endswith("weight"))).to(dtype)
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(fields))
    save_tokenizer(folder)
    return folder


def add_tensors(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    """Give a checkpoint more tensors."""
    known = load_file(folder / "model.safetensors")
    save_file(known | tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


Forward = Callable[[Any, torch.Tensor], torch.Tensor]
"""From a model and ids [1, T] to token vectors [1, T, D]."""


def last_hidden_state(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """What most models are asked for."""
    vectors: torch.Tensor = model(input_ids=ids).last_hidden_state
    return vectors


@dataclasses.dataclass(frozen=True)
class Peer:
    """A model class of transformers, and how it is run, `kind` of attention included."""

    model: Any
    forward: Forward = last_hidden_state
    loading: dict[str, Any] = dataclasses.field(default_factory=dict)
    kind: str = "eager"

    def token_vectors(self, folder: Path, dtype: torch.dtype, texts: Sequence[str]) -> list[Any]:
        """A text at a time."""
        model = self.model.from_pretrained(str(folder), dtype=dtype, attn_implementation=self.kind, **self.loading)
        model.eval()
        found = []
        for text in texts:
            with torch.inference_mode():
                found.append(self.forward(model, ids_of(text)[None])[0].double().numpy())
        return found


@dataclasses.dataclass(frozen=True)
class Formula:
    """A model that transformers lacks, as a function of its tensors, its config and ids [T] to token vectors [T, D]."""

    forward: Callable[[Mapping[str, torch.Tensor], Mapping[str, Any], torch.Tensor], torch.Tensor]

    def token_vectors(self, folder: Path, dtype: torch.dtype, texts: Sequence[str]) -> list[Any]:
        """A text at a time."""
        tensors = {name: tensor.to(dtype) for name, tensor in load_file(folder / "model.safetensors").items()}
        fields = json.loads((folder / "config.json").read_text())
        with torch.inference_mode():
            return [self.forward(tensors, fields, ids_of(text)).double().numpy() for text in texts]


def encoder_of(folder: Path, isa: str, **options: Any) -> Encoder:
    """An encoder of one tier of instructions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LONGSPAN_ISA", isa)
        return Encoder(folder, device="cpu", **options)


def check(
    folder: Path,
    peer: Reference,
    texts: Sequence[str] | None = None,
    *,
    unfused: float = 2.0,
    task: str | None = None,
) -> None:
    """`check_errors` and `check_narrow`, which are written down; what holds of every checkpoint holds of this one.

    The narrow formats run on the best tier, and for the first checkpoint of a model type on all tiers.
    """
    texts = texts_of() if texts is None else texts
    errors, cosine = check_errors(folder, peer, texts, unfused=unfused, task=task)
    config = read_json(folder / "config.json")
    model_type = _named(config)
    known = any(parity.model_type == model_type for parity in MEASURED)
    tiers = _csrc.tiers()[-1:] if known else _csrc.tiers()
    exact = peer.token_vectors(folder, torch.float64, texts)
    narrow: dict[str, float] = {
        weights: check_narrow(folder, peer, texts, exact, weights, tiers, task) for weights in NARROW
    }
    options = options_of(config, encoder_of(folder, tiers[-1])._pipeline.body)
    MEASURED.append(Parity(model_type, configuration(), errors, cosine, narrow, options))
    for weights in FORMATS:
        check_properties(folder, texts, weights)
    for isa in tiers[:-1]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LONGSPAN_ISA", isa)
            for weights in NARROW:
                check_bits(folder, texts, weights)


def _named(config: Mapping[str, Any]) -> str:
    """The model type, with the kind of positions where these make it another family."""
    model_type, positions = config["model_type"], config.get("position_embedding_type")
    return f"{model_type}, {positions}" if (model_type, positions) in NAMESAKES else str(model_type)


def check_errors(
    folder: Path,
    peer: Reference,
    texts: Sequence[str],
    *,
    unfused: float = 2.0,
    task: str | None = None,
    **options: Any,
) -> tuple[dict[str, float], float]:
    """On every tier our error to float64, over a packed batch, is at most twice that of torch in float32.

    Args:
        folder: the checkpoint.
        peer: runs it with torch.
        texts: what is embedded.
        unfused: what the generic tier may err by instead, over torch's error: it has no fused multiply-adds.
        task: of the call, which is made without a prompt.
        options: of the encoder.

    Returns:
        The greatest error of each tier, over torch's, and the smallest cosine of all.
    """
    exact, theirs = (peer.token_vectors(folder, dtype, texts) for dtype in (torch.float64, torch.float32))
    slack = SLACK * max(float(np.abs(matrix).max()) for matrix in exact)
    usual = greatest_error(theirs, exact)
    errors, cosines = {}, []
    for isa in _csrc.tiers():
        ours = token_vectors(encoder_of(folder, isa, threads=1, **options), texts, task)
        assert [mine.shape for mine in ours] == [truth.shape for truth in exact]
        error = greatest_error(ours, exact)
        assert error <= (unfused if isa == "generic" else 2) * usual + slack, (
            f"{isa}: error {error:.3g}, torch's {usual:.3g}"
        )
        errors[isa] = error / usual
        cosines.append(smallest_cosine(ours, exact))
    return errors, min(cosines)


def check_narrow(
    folder: Path,
    peer: Reference,
    texts: Sequence[str],
    exact: Sequence[Any],
    weights: Format,
    tiers: Sequence[str],
    task: str | None,
) -> float:
    """In a narrow format our error to float64 is at most twice that of torch which rounds alike, see `judge_of`.

    In bfloat16 it is the greatest error. In int8 it is the root of the mean square over all tokens: roundings are so
    coarse that one token may go to other experts, or look elsewhere, whose error says nothing of the others.

    Returns:
        The smallest cosine of a text's vector.
    """
    measure = greatest_error if weights == "bfloat16" else mean_error
    usual = measure(judge_of(peer, weights, folder, texts), exact)
    cosines = []
    for isa in tiers:
        encoder = encoder_of(folder, isa, threads=1, weights=weights)
        ours = token_vectors(encoder, texts, task)
        error = measure(ours, exact)
        assert error <= 2 * usual, f"{isa}, {weights}: error {error:.3g}, that of the rounding {usual:.3g}"
        kind = encoder._pipeline.recipe.pooling
        cosines.append(smallest_cosine(*([pooled(matrix, kind) for matrix in side] for side in (ours, exact))))
    return min(cosines)


def token_vectors(encoder: Encoder, texts: Sequence[str], task: str | None) -> list[Float32]:
    """[T, D] for each text, without a prompt."""
    vectors: list[Float32] = encoder.encode(list(texts), prompt="", output_value="token_embeddings", task=task)
    return vectors


def pooled(matrix: Any, pooling: Sequence[str]) -> Any:
    """[1, D] the vector of a text from those of its tokens [T, D]."""
    (kind,) = pooling
    return {"mean": matrix.mean(0, keepdims=True), "lasttoken": matrix[-1:]}[kind]


def greatest_error(matrices: Sequence[Any], exact: Sequence[Any]) -> float:
    """Over all tokens of all texts."""
    return max(float(np.abs(matrix - truth).max()) for matrix, truth in zip(matrices, exact, strict=True))


def mean_error(matrices: Sequence[Any], exact: Sequence[Any]) -> float:
    """The root of the mean square over all tokens of all texts."""
    return float(np.sqrt(np.mean(np.square(np.concatenate(matrices) - np.concatenate(exact)))))


def assert_refused(folder: Path, fields: Mapping[str, Any], message: str, tensors: Sequence[str] = ()) -> None:
    """A config of these fields, those that are None left out, is refused with its path and the message."""
    path = folder / "config.json"
    path.write_text(json.dumps({name: value for name, value in fields.items() if value is not None}))
    with pytest.raises(CheckpointError, match=re.escape(f"{path}: {message}")):
        build_body(ModelConfig(path, read_json(path), tensors=tensors))
