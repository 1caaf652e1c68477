"""Model families: `config.json` in, body out. Adding one is a file here and a line in `FAMILIES`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..errors import CheckpointError
from ..program.instructions import Qkv
from ..program.rope import DynamicNtk
from .bert import bert
from .config import ModelConfig
from .distilbert import distilbert
from .electra import electra
from .embedding_gemma2 import embedding_gemma2, embedding_gemma2_text
from .eurobert import eurobert
from .family import Body, Family, both_sides
from .gemma import gemma, gemma2, gemma3, gemma3_text
from .gpt2 import gpt2
from .gpt_neox import gpt_neox
from .gte import gte, new
from .jina_bert import jina_bert
from .jina_v3 import jina_v3, xlm_roberta_flash
from .jina_v5 import jina_v5
from .llama import llama, mistral, qwen2, qwen3
from .ministral import ministral, ministral3, mistral3
from .mixture import mixtral, qwen3_moe
from .modernbert import modernbert
from .mpnet import mpnet
from .nomic_bert import nomic_bert
from .nvembed import nvembed
from .olmo2 import olmo2
from .opt import opt
from .phi3 import phi3
from .roberta import camembert, roberta, xlm_roberta
from .smollm3 import smollm3
from .t5 import mt5, t5, umt5
from .ultrabert import ultrabert

FAMILIES: Mapping[str, Family] = {
    "bert": bert,
    "bidirectional_pplx_qwen3": both_sides(qwen3),
    "camembert": camembert,
    "distilbert": distilbert,
    "electra": electra,
    "embedding_gemma2": embedding_gemma2,
    "embedding_gemma2_text": embedding_gemma2_text,
    "eurobert": eurobert,
    "gemma": gemma,
    "gemma2": gemma2,
    "gemma3": gemma3,
    "gemma3_text": gemma3_text,
    "gpt2": gpt2,
    "gpt_neox": gpt_neox,
    "gte": gte,
    "jina_embeddings_v3": jina_v3,
    "jina_embeddings_v5": jina_v5,
    "llama": llama,
    "llama_bidirec": both_sides(llama),
    "ministral": ministral,
    "ministral3": ministral3,
    "ministral3_bidirec": both_sides(ministral3),
    "mistral": mistral,
    "mistral3": mistral3,
    "mixtral": mixtral,
    "modernbert": modernbert,
    "mpnet": mpnet,
    "mt5": mt5,
    "new": new,
    "nomic_bert": nomic_bert,
    "nvembed": nvembed,
    "olmo2": olmo2,
    "opt": opt,
    "phi3": phi3,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "qwen3_moe": qwen3_moe,
    "roberta": roberta,
    "smollm3": smollm3,
    "t5": t5,
    "ultrabert": ultrabert,
    "umt5": umt5,
    "xlm-roberta": xlm_roberta,
}

NAMESAKES: Mapping[tuple[str, str], Family] = {
    ("bert", "alibi"): jina_bert,
    ("xlm-roberta", "rotary"): xlm_roberta_flash,
}
"""Families by model type and `position_embedding_type`, whose original code has the model type of another."""


def build_body(config: ModelConfig) -> Body:
    """The body of a checkpoint by its `model_type`.

    Raises:
        CheckpointError: the model type is unknown, or a field of the config is missing or wrong.
    """
    _refuse_quantised(config)
    model_type = config.text("model_type")
    if model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        others = "transformers runs others: Encoder(..., backend='transformers')"
        if config.table("auto_map").values:
            others = (
                "It brings code of its own ('auto_map'), which is never run; where transformers has the architecture "
                "too, convert the checkpoint to its type, and Encoder(..., backend='transformers') runs it"
            )
        raise CheckpointError(
            f"{config.path}: field 'model_type' is {model_type!r}, which is not supported; known are {known}. {others}."
        )
    positions = config.text("position_embedding_type", default="absolute")
    return _reaching(NAMESAKES.get((model_type, positions), FAMILIES[model_type])(config))


def _refuse_quantised(config: ModelConfig) -> None:
    field = "quantization_config"
    if config.values.get(field) is not None:
        method = config.table(field).values.get("quant_method", "a method that it does not name")
        hint = "take the original checkpoint, which weights='int8' makes small when it is loaded"
        raise config.wrong(field, f"says that the weights are quantised ({method}), which is not supported; {hint}")


def _reaching(body: Body) -> Body:
    """The body with the positions that dynamic NTK has frequencies for: its factor says how many times as many."""
    ropes = (step.rope for step in body.instructions if isinstance(step, Qkv) and step.rope is not None)
    reach = [int(rope.long.original * rope.long.factor) for rope in ropes if isinstance(rope.long, DynamicNtk)]
    return replace(body, max_positions=max(body.max_positions, *reach)) if reach else body
