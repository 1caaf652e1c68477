"""Tasks for which a checkpoint holds low-rank adaptations beside its weights, as the config.json of Jina v3 says them.

{"lora_adaptations": [task, …], "lora_rank": 4, "lora_alpha": 1, "task_instructions": {task: prompt}}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .config import Fields

CODE = ("xlm-roberta", "rotary")
"""`model_type` and `position_embedding_type` of the original code that these fields belong to."""


@dataclass(frozen=True, slots=True)
class Adaptations:
    """What a config says of them.

    Attributes:
        tasks: by name, in the order of the tensors.
        rank: of the pairs.
        scale: of what they add to the weights.
        instructions: task → what is put before its texts.
    """

    tasks: tuple[str, ...]
    rank: int
    scale: float
    instructions: Mapping[str, str]


def read_adaptations(config: Fields) -> Adaptations | None:
    """What a config.json says of them; None where it declares none.

    Raises:
        CheckpointError: a field is damaged; the message names it.
    """
    if (config.values.get("model_type"), config.values.get("position_embedding_type")) != CODE:
        return None
    if not config.values.get("lora_adaptations") or not config.flag("load_trained_adapters", default=True):
        return None
    tasks = config.names("lora_adaptations")
    if "" in tasks or len(set(tasks)) < len(tasks):
        raise config.wrong("lora_adaptations", "must be a list of tasks, each once")
    table = config.table("task_instructions")
    for name in table.values:
        if name not in tasks:
            raise table.wrong(name, f"is not among the 'lora_adaptations' ({', '.join(tasks)})")
    rank = config.optional_integer("lora_rank") or 4
    scale = config.number("lora_alpha", default=1.0) / rank
    return Adaptations(tasks, rank, scale, {name: table.optional_text(name) or "" for name in tasks})


def file_adaptations(path: Path) -> Adaptations | None:
    """Those of a config.json that may not exist; raises as `read_adaptations`."""
    return read_adaptations(Fields.read_optional(path))
