"""NV-Embed, judged by its formula: transformers has its backbone only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from transformers import MistralConfig, MistralModel

from longspan import CheckpointError, Encoder

from .harness import SLACK, VOCABULARY, Formula, assert_refused, check, edit_config, encoder_of, save_tokenizer
from .tiny import BASE as TEXT

LATENT = {"num_latents_value": 12, "num_cross_heads": 4, "latent_dim": 48, "hidden_dim": 48, "cross_dim_head": 40}
HEAD = "latent_attention_model"


def save(folder: Path, text: dict[str, Any], latent: dict[str, Any]) -> Path:
    """A random checkpoint with the names of the published ones."""
    torch.manual_seed(0)
    config = MistralConfig(**TEXT | {"sliding_window": None, "is_causal": False} | text)
    tensors = {f"embedding_model.{name}": tensor for name, tensor in MistralModel(config).state_dict().items()}
    width, sizes = config.hidden_size, LATENT | latent
    inner = sizes["num_cross_heads"] * sizes["cross_dim_head"]
    shapes = {
        "0.fn.to_q.weight": (inner, width),
        "0.fn.to_kv.weight": (2 * inner, width),
        "0.fn.to_out.weight": (width, inner),
        "1.fn.net.0.weight": (8 * width, width),
        "1.fn.net.2.weight": (width, 4 * width),
        **{
            f"{norm}.{part}": (width,) for norm in ("0.norm", "0.norm_context", "1.norm") for part in ("weight", "bias")
        },
        "1.fn.net.0.bias": (8 * width,),
        "1.fn.net.2.bias": (width,),
    }
    head = {f"{HEAD}.cross_attend_blocks.{name}": 0.3 * torch.randn(shape) for name, shape in shapes.items()}
    latents = {f"{HEAD}.latents": torch.randn(sizes["num_latents_value"], width)}
    save_file(tensors | head | latents, folder / "model.safetensors", metadata={"format": "pt"})
    fields = {"model_type": "bidir_mistral"} | {name: getattr(config, name) for name in TEXT} | text
    # Token vectors are what most tests are about; the tokenizer has the end already.
    latent = {**sizes, "output_normalize": False}
    whole = {"model_type": "nvembed", "text_config": fields, "latent_attention_config": latent, "add_eos": False}
    (folder / "config.json").write_text(json.dumps(whole))
    save_tokenizer(folder)
    return folder


def vectors(tensors: Mapping[str, Tensor], fields: Mapping[str, Any], ids: Tensor) -> Tensor:
    """What the checkpoints' code computes, written out; Mistral is transformers'."""
    dtype = tensors[f"{HEAD}.latents"].dtype
    options = {**fields["text_config"], "sliding_window": None, "is_causal": False, "attn_implementation": "eager"}
    backbone = MistralModel(MistralConfig(**options)).to(dtype).eval()
    own = {name.removeprefix("embedding_model."): tensor for name, tensor in tensors.items() if HEAD not in name}
    backbone.load_state_dict(own)
    x: Tensor = backbone(input_ids=ids[None]).last_hidden_state[0]
    heads = fields["latent_attention_config"]["num_cross_heads"]

    def at(name: str) -> Tensor:
        return tensors[f"{HEAD}.cross_attend_blocks.{name}"]

    def norm(x: Tensor, name: str) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], at(f"{name}.weight"), at(f"{name}.bias"))

    def by_head(x: Tensor) -> Tensor:
        return x.reshape(len(x), heads, -1).transpose(0, 1)

    q = norm(x, "0.norm") @ at("0.fn.to_q.weight").T
    k, v = (norm(tensors[f"{HEAD}.latents"], "0.norm_context") @ at("0.fn.to_kv.weight").T).chunk(2, -1)
    scores = by_head(q) @ by_head(k).transpose(1, 2) * (q.shape[1] // heads) ** -0.5
    x = x + (torch.softmax(scores, -1) @ by_head(v)).transpose(0, 1).flatten(1) @ at("0.fn.to_out.weight").T
    up, gate = functional.linear(norm(x, "1.norm"), at("1.fn.net.0.weight"), at("1.fn.net.0.bias")).chunk(2, -1)
    return x + functional.linear(up * functional.gelu(gate), at("1.fn.net.2.weight"), at("1.fn.net.2.bias"))


CONFIGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "one head": ({}, {"num_cross_heads": 1, "cross_dim_head": 48}),
    "many heads": ({"num_hidden_layers": 2}, {"num_cross_heads": 8, "cross_dim_head": 24, "num_latents_value": 33}),
    "odd sizes": ({"num_key_value_heads": 1}, {"num_cross_heads": 3, "cross_dim_head": 7, "num_latents_value": 5}),
    "one latent": ({"head_dim": 40}, {"num_latents_value": 1}),
    "heads as wide as the text": ({}, {"num_cross_heads": 2, "cross_dim_head": 300, "num_latents_value": 70}),
    "wide": ({"hidden_size": 136}, {"latent_dim": 136, "hidden_dim": 136, "cross_dim_head": 136}),
    "biased eps": ({"rms_norm_eps": 1e-3, "intermediate_size": 33}, {}),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_nvembed(tmp_path: Path, name: str) -> None:
    check(save(tmp_path, *CONFIGS[name]), Formula(vectors))


def test_windows_do_not_count(tmp_path: Path) -> None:
    """Mistral's config has a window, which the checkpoints' code gives to no layer."""
    folder = save(tmp_path, {}, {})
    text = json.loads((folder / "config.json").read_text())["text_config"]
    edit_config(folder, text_config=text | {"sliding_window": 5})
    check(folder, Formula(vectors))


def pooled(folder: Path, ids: list[list[int]], first: int, dtype: torch.dtype) -> Any:
    """[N, D] the mean of each text's token vectors from one of them on."""
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(folder / "model.safetensors").items()}
    fields = json.loads((folder / "config.json").read_text())
    with torch.inference_mode():
        return np.array([vectors(tensors, fields, torch.tensor(own))[first:].mean(0).double().numpy() for own in ids])


ENDED = [[2, *map(VOCABULARY.index, text.split()), 3] for text in ("a b c", "d", "e f g h a b")]
INSTRUCTED = [[2, 20, 21, 22, *own[1:]] for own in ENDED]
FORMS: dict[str, tuple[dict[str, Any], bool, int]] = {
    "without an instruction": ({}, True, 0),
    "with an instruction": ({}, True, 4),
    "instruction counted": ({"is_mask_instruction": False}, True, 0),
    "padded before": ({"padding_side": "left"}, True, 0),
    "without an end": ({"add_eos": False}, True, 4),
    "of any length": ({"latent_attention_config": {**LATENT, "output_normalize": False}}, False, 4),
}


@pytest.mark.parametrize("name", FORMS)
def test_vectors_of_texts(tmp_path: Path, name: str) -> None:
    """A plain folder is pooled as by its code, which puts the end behind texts and leaves the instruction out."""
    fields, unit, first = FORMS[name]
    folder = edit_config(save(tmp_path, {}, {}), **{"add_eos": None, "latent_attention_config": LATENT, **fields})
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    del tokenizer["post_processor"]["single"][-1]  # the end, which its own tokenizer does not add
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    ids = ENDED if name == "without an instruction" else INSTRUCTED
    if name == "without an end":
        ids = [own[:-1] for own in ids]
    exact, theirs = (pooled(folder, ids, first, dtype) for dtype in (torch.float64, torch.float32))
    if unit:
        exact, theirs = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (exact, theirs))
    prompt = "" if name == "without an instruction" else "".join(f"{VOCABULARY[i]} " for i in (20, 21, 22))
    encoder = encoder_of(folder, "generic")
    ours = encoder.encode(["a b c", "d", "e f g h a b"], prompt=prompt)
    assert np.abs(ours - exact).max() <= 2 * np.abs(theirs - exact).max() + SLACK
    encoder.save(tmp_path / "saved")
    assert (encoder_of(tmp_path / "saved", "generic").encode("a b c", prompt=prompt) == ours[0]).all()


def test_an_end_that_is_none(tmp_path: Path) -> None:
    folder = save(tmp_path, {}, {})
    (folder / "tokenizer_config.json").write_text('{"eos_token": [1]}')
    with pytest.raises(CheckpointError, match=r"field 'eos_token' is \[1\], expected a token"):
        Encoder(folder)


def test_maximum(tmp_path: Path) -> None:
    assert encoder_of(save(tmp_path, {}, {}), "generic").max_seq_length == 160


@pytest.mark.parametrize(
    ("text", "latent", "message"),
    [
        ({}, {"latent_dim": 40}, "field 'latent_attention_config.latent_dim' is 40, but the text model is 48 wide"),
        ({}, {"hidden_dim": 40}, "field 'latent_attention_config.hidden_dim' is 40, but the text model is 48 wide"),
        ({}, {"num_cross_heads": 0}, "field 'latent_attention_config.num_cross_heads' is 0, expected a positive"),
        ({"num_attention_heads": "4"}, {}, "field 'text_config.num_attention_heads' is '4', expected a positive"),
    ],
)
def test_config_errors(tmp_path: Path, text: dict[str, Any], latent: dict[str, Any], message: str) -> None:
    fields = {"model_type": "nvembed", "text_config": TEXT | text, "latent_attention_config": LATENT | latent}
    assert_refused(tmp_path, fields, message)
