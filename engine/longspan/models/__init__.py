"""Model families: `config.json` in, body out. Adding one is a file here and a line in `FAMILIES`."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import CheckpointError
from .bert import bert
from .config import ModelConfig
from .distilbert import distilbert
from .electra import electra
from .eurobert import eurobert
from .family import Body, Family
from .llama import llama, mistral, qwen2, qwen3
from .modernbert import modernbert
from .mpnet import mpnet
from .roberta import camembert, roberta, xlm_roberta
from .t5 import mt5, t5, umt5
from .ultrabert import ultrabert

FAMILIES: Mapping[str, Family] = {
    "bert": bert,
    "camembert": camembert,
    "distilbert": distilbert,
    "electra": electra,
    "eurobert": eurobert,
    "llama": llama,
    "mistral": mistral,
    "modernbert": modernbert,
    "mpnet": mpnet,
    "mt5": mt5,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "roberta": roberta,
    "t5": t5,
    "ultrabert": ultrabert,
    "umt5": umt5,
    "xlm-roberta": xlm_roberta,
}


def build_body(config: ModelConfig) -> Body:
    """The body of a checkpoint by its `model_type`.

    Raises:
        CheckpointError: the model type is unknown, or a field of the config is missing or wrong.
    """
    model_type = config.text("model_type")
    if model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise CheckpointError(f"{config.path}: model_type {model_type!r} is not supported; known are {known}")
    return FAMILIES[model_type](config)
