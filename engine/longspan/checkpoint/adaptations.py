"""Tasks for which a checkpoint holds low-rank adaptations beside its weights, as the config.json of Jina v3 and v5 say.

v3: {"lora_adaptations": [task, …], "lora_rank": 4, "lora_alpha": 1, "task_instructions": {task: prompt}}
v5: {"task_names": [task, …]}, and a LoRA in PEFT's files in adapters/TASK for each
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .config import Fields

V3 = ("xlm-roberta", "rotary")
"""`model_type` and `position_embedding_type` of the original code that these fields belong to."""
V5 = "jina_embeddings_v5"


@dataclass(frozen=True, slots=True)
class Adaptations:
    """What a config says of them.

    Attributes:
        tasks: by name, in the order of the tensors.
        instructions: task → what is put before its texts.
        retrieval: what `encode_query` and `encode_document` ask for ("query", "document") → the task that it is.
        needed: a call without a task is refused.
        folders: of the adapters; none where the pairs are among the checkpoint's own tensors.
    """

    tasks: tuple[str, ...]
    instructions: Mapping[str, str] = field(default_factory=dict)
    retrieval: Mapping[str, str] = field(default_factory=dict)
    needed: bool = False
    folders: tuple[Path, ...] = ()


def read_adaptations(config: Fields) -> Adaptations | None:
    """What a config.json says of them; None where it declares none.

    Raises:
        CheckpointError: a field is damaged; the message names it.
    """
    if config.values.get("model_type") == V5:
        return _v5(config)
    if (config.values.get("model_type"), config.values.get("position_embedding_type")) == V3:
        return _v3(config)
    return None


def file_adaptations(path: Path) -> Adaptations | None:
    """Those of a config.json that may not exist; raises as `read_adaptations`."""
    return read_adaptations(Fields.read_optional(path))


def _v3(config: Fields) -> Adaptations | None:
    if not config.values.get("lora_adaptations") or not config.flag("load_trained_adapters", default=True):
        return None
    tasks = _tasks(config, "lora_adaptations")
    table = config.table("task_instructions")
    for name in table.values:
        if name not in tasks:
            raise table.wrong(name, f"is not among the 'lora_adaptations' ({', '.join(tasks)})")
    instructions = {name: table.optional_text(name) or "" for name in tasks}
    return Adaptations(tasks, instructions, {"query": "retrieval.query", "document": "retrieval.passage"})


def _v5(config: Fields) -> Adaptations:
    tasks = _tasks(config, "task_names")
    if not tasks:
        raise config.wrong("task_names", "is missing or empty; it must name the tasks that there are adapters for")
    for name in tasks:
        if Path(name).name != name:
            raise config.wrong("task_names", f"has the task '{name}', which names no folder of adapters")
    folders = tuple(config.path.parent / "adapters" / name for name in tasks)
    return Adaptations(tasks, {}, {"query": "retrieval", "document": "retrieval"}, needed=True, folders=folders)


def _tasks(config: Fields, field: str) -> tuple[str, ...]:
    tasks = config.names(field)
    if "" in tasks or len(set(tasks)) < len(tasks):
        raise config.wrong(field, "must be a list of tasks, each once")
    return tasks
