"""Folders that are not pooled as others are, because their authors' own code does it.

That is LLM2Vec's, GritLM's, NV-Embed's and Jina v5's.

llm2vec_config.json: {"pooling_mode": "mean", "max_length": 512, "doc_max_length": 400, "skip_instruction": true}
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from reprlib import repr as shown

from .adaptations import V5
from .adapter import CONFIG as ADAPTER
from .config import Fields
from .files import TransformerFiles
from .modules import NormalizeModule, Pooling, TailModule

LLM2VEC = "llm2vec_config.json"
LLM2VEC_POOLINGS = {
    "mean": "mean",
    "weighted_mean": "weightedmean",
    "last_token": "lasttoken",
    "eos_token": "lasttoken",
    "bos_token": "cls",
}
TUNED_FOR_CHAT = re.compile(r"-(instruct|chat|it)(-|$)", re.IGNORECASE)
INST, QWEN = ("[INST] ", " [/INST]"), ("<|im_start|>user\n", "<|im_end|>")
LLAMA3 = "meta-llama/Meta-Llama-3-8B-Instruct"
CHAT_FORMATS: Mapping[str, tuple[str, str]] = {
    LLAMA3: ("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
    "mistralai/Mistral-7B-Instruct-v0.2": INST,
    "meta-llama/Llama-2-7b-chat-hf": INST,
    "google/gemma-2-9b-it": ("<bos><start_of_turn>user\n", "<end_of_turn>"),
    "Qwen/Qwen2-1.5B-Instruct": QWEN,
    "Qwen/Qwen2-7B-Instruct": QWEN,
}
"""What LLM2Vec puts before and behind texts for these base models."""
ENDS: Mapping[str, str] = {
    "meta-llama/Meta-Llama-3-8B": "<|end_of_text|>",
    "llama": " </s>",
    "mistral": " </s>",
    "gemma": "<eos>",
    "qwen2": "<|endoftext|>",
}
"""What stands behind texts whose last token is pooled ("eos_token"), by base model or else by model type."""
NVEMBED = "nvembed"
GRITLM = "gritlm"
GRITLM_PROMPT = "<|embed|>\n"
"""Before texts without an instruction; with one it is "<|user|>\\n…\\n<|embed|>\\n"."""


@dataclass(frozen=True, slots=True)
class Convention:
    """What the authors' code does.

    Attributes:
        pooling: of the token vectors.
        both_sides: whether tokens see both sides, whatever config.json says.
        max_seq_length: where it cuts; None leaves it to the folder.
        tail: what happens to the pooled vector.
        prompts: (name, text).
        default_prompt_name: the prompt of calls that name none.
        wrap: what stands before and behind every text, prompt included; these are stripped then.
        file: says so.
        base: the name of the base model, where `wrap` depends on it.
    """

    pooling: Pooling
    both_sides: bool = False
    max_seq_length: int | None = None
    tail: tuple[TailModule, ...] = ()
    prompts: tuple[tuple[str, str], ...] = ()
    default_prompt_name: str | None = None
    wrap: tuple[str, str] | None = None
    file: Path | None = None
    base: str | None = None


def read_convention(files: TransformerFiles, adapter: Path | None = None) -> Convention | None:
    """The convention of a folder, or of a LoRA that is merged into it; None for the usual.

    Raises:
        CheckpointError: its file is damaged, or asks for what is not supported; the message names file and field.
    """
    config = Fields.read(files.config)
    adapters = [place for place in (adapter, files.folder) if place is not None]
    for place in adapters:
        if (place / LLM2VEC).exists():
            named = [(Fields.read_optional(at / ADAPTER), "base_model_name_or_path") for at in adapters]
            return _llm2vec(place / LLM2VEC, config, [*named, (config, "_name_or_path")])
    if config.values.get("model_type") == V5:
        return replace(JINA_V5, file=files.config)
    if config.values.get("model_type") == NVEMBED:
        return _nvembed(config, Fields.read_optional(files.tokenizer / "tokenizer_config.json"))
    code = config.table("auto_map").values.values()
    return _gritlm(files.config) if any(GRITLM in str(name) for name in code) else None


def _llm2vec(path: Path, config: Fields, named: Sequence[tuple[Fields, str]]) -> Convention:
    """Text tokens and what is behind them are pooled, counted from the first, but neither instruction nor beginning."""
    fields = Fields.read(path)
    mode = fields.optional_text("pooling_mode") or "mean"
    if mode not in LLM2VEC_POOLINGS:
        raise fields.wrong("pooling_mode", f"is '{mode}'; supported are {', '.join(LLM2VEC_POOLINGS)}")
    pooling = Pooling((LLM2VEC_POOLINGS[mode],), own_tokens=fields.flag("skip_instruction", default=True))
    base = next((name for about, field in named if (name := about.optional_text(field)) in CHAT_FORMATS), None)
    for about, field in named if base is None else ():
        if TUNED_FOR_CHAT.search(about.optional_text(field) or ""):
            known = ", ".join(CHAT_FORMATS)
            raise about.wrong(field, f"is a model for chat, and LLM2Vec's code has formats for these only: {known}")
    opening, closing = ("", "") if base is None else CHAT_FORMATS[base]
    if mode == "eos_token" and base != LLAMA3:
        names = [about.optional_text(field) for about, field in named]
        base = next((name for name in names if name in ENDS), base)
        closing += ENDS.get(base or "") or ENDS.get(config.optional_text("model_type") or "", "")
    return Convention(
        pooling,
        both_sides=True,
        max_seq_length=fields.optional_integer("max_length") or 512,
        wrap=(opening, closing) if opening or closing else None,
        file=path,
        base=base,
    )


def is_jina_v5(path: Path) -> bool:
    """Whether a config.json is one of Jina v5."""
    return Fields.read(path).values.get("model_type") == V5


JINA_V5 = Convention(
    Pooling(("lasttoken",)),
    tail=(NormalizeModule(),),
    prompts=(("query", "Query: "), ("document", "Document: ")),
    default_prompt_name="document",
)


def _gritlm(path: Path) -> Convention:
    return Convention(
        Pooling(("mean",), include_prompt=False),
        tail=(NormalizeModule(),),
        prompts=(("query", GRITLM_PROMPT), ("document", GRITLM_PROMPT)),
        default_prompt_name="document",
        file=path,
    )


def _nvembed(config: Fields, tokenizer: Fields) -> Convention:
    """The end token behind all texts; the mean of it and of what precedes it, but for an instruction and its beginning.

    Its code counts an instruction's tokens without the beginning and so leaves the last one in; here as in
    sentence-transformers none counts.
    """
    masked = config.flag("is_mask_instruction", default=True)
    left = config.optional_text("padding_side") == "left"  # its code masks the first tokens of what is padded behind
    end = tokenizer.values.get("eos_token") or "</s>"
    end = end.get("content") if isinstance(end, dict) else end
    if not isinstance(end, str):
        raise tokenizer.wrong("eos_token", f"is {shown(end)}, expected a token")
    unit = config.table("latent_attention_config").flag("output_normalize", default=True)
    return Convention(
        Pooling(("mean",), include_prompt=left or not masked),
        tail=(NormalizeModule(),) if unit else (),
        wrap=("", end) if config.flag("add_eos", default=True) else None,
        file=config.path,
    )
