"""Model families: `config.json` in, body out. Adding one is a file here and a line in `FAMILIES`."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import CheckpointError
from .bert import bert
from .family import Body, Family, ModelConfig

FAMILIES: Mapping[str, Family] = {
    "bert": bert,
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
