"""Plain folders that are not pooled as others are, because their authors' own code does it: LLM2Vec and GritLM.

llm2vec_config.json: {"pooling_mode": "mean", "max_length": 512, "doc_max_length": 400, "skip_instruction": true}
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from .config import Fields
from .files import TransformerFiles
from .modules import NormalizeModule, Pooling, TailModule

LLM2VEC = "llm2vec_config.json"
LLM2VEC_POOLINGS = {"mean": "mean", "weighted_mean": "weightedmean", "last_token": "lasttoken", "bos_token": "cls"}
# LLM2Vec puts texts for such base models into their chat format.
TUNED_FOR_CHAT = re.compile(r"-(instruct|chat|it)(-|$)", re.IGNORECASE)
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
    """

    pooling: Pooling
    both_sides: bool = False
    max_seq_length: int | None = None
    tail: tuple[TailModule, ...] = ()
    prompts: tuple[tuple[str, str], ...] = ()
    default_prompt_name: str | None = None


def read_convention(files: TransformerFiles, adapter: Path | None = None) -> Convention | None:
    """The convention of a folder, or of a LoRA that is merged into it; None for the usual.

    Raises:
        CheckpointError: its file is damaged, or asks for what is not supported; the message names file and field.
    """
    for place in (files.folder, adapter):
        if place is not None and (place / LLM2VEC).exists():
            return _llm2vec(place)
    code = Fields.read(files.config).table("auto_map").values.values()
    return _gritlm() if any(GRITLM in str(name) for name in code) else None


def _llm2vec(folder: Path) -> Convention:
    """Text tokens alone are pooled, counted from the first, neither the instruction's nor the beginning of sequence."""
    fields = Fields.read(folder / LLM2VEC)
    for name, field in (("config.json", "_name_or_path"), ("adapter_config.json", "base_model_name_or_path")):
        about = Fields.read_optional(folder / name)
        if TUNED_FOR_CHAT.search(about.optional_text(field) or ""):
            raise about.wrong(field, "is a model for chat, in whose format LLM2Vec puts texts, which is not supported")
    mode = fields.optional_text("pooling_mode") or "mean"
    if mode not in LLM2VEC_POOLINGS:
        raise fields.wrong("pooling_mode", f"is '{mode}'; supported are {', '.join(LLM2VEC_POOLINGS)}")
    pooling = Pooling((LLM2VEC_POOLINGS[mode],), own_tokens=fields.flag("skip_instruction", default=True))
    return Convention(pooling, both_sides=True, max_seq_length=fields.optional_integer("max_length") or 512)


def _gritlm() -> Convention:
    return Convention(
        Pooling(("mean",), include_prompt=False),
        tail=(NormalizeModule(),),
        prompts=(("query", GRITLM_PROMPT), ("document", GRITLM_PROMPT)),
        default_prompt_name="document",
    )
