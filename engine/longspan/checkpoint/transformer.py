"""The transformer module: how long a text may be, and the settings that would change a vector unseen."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from .config import Fields, json_kind
from .files import TransformerFiles

# sentence-transformers takes the first of these that holds anything.
SETTINGS_FILES = tuple(
    f"sentence_{family}_config.json"
    for family in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
UNLIMITED = 1_000_000
"""Tokens that stand for no limit: of tokenizers, which say 1e30 or another huge number, and of models whose positions
have no last one, such as those with a relative bias only."""
# Model types whose config.json has another name for max_position_embeddings.
POSITION_FIELDS = {
    "codegen": "n_positions",
    "ctrl": "n_positions",
    "dbrx": "max_seq_len",
    "gpt2": "n_positions",
    "gpt_bigcode": "n_positions",
    "gptj": "n_positions",
    "openai-gpt": "n_positions",
}
LOADING = frozenset({"trust_remote_code", "revision", "local_files_only", "token", "cache_dir", "subfolder"})
# What may stand in the arguments of a checkpoint without changing its vectors, given that nothing is padded here.
HARMLESS = {
    "model_args": LOADING
    | {"dtype", "torch_dtype", "attn_implementation", "add_pooling_layer", "use_safetensors", "low_cpu_mem_usage"}
    | {"device_map", "unpad_inputs", "use_memory_efficient_attention"},
    "tokenizer_args": LOADING | {"model_max_length", "use_fast", "padding_side"},
    "config_args": LOADING | {"use_cache", "output_hidden_states", "output_attentions"},
}
NEW_NAMES = {"model_args": "model_kwargs", "tokenizer_args": "processor_kwargs", "config_args": "config_kwargs"}
PROCESSING = frozenset({"max_length", "truncation", "padding", "pad_to_multiple_of", "return_tensors"})
TRUNCATIONS = (True, "longest_first", "only_first")


@dataclass(frozen=True, slots=True)
class TransformerModule:
    """The first module.

    Attributes:
        files: where config.json, the weights and the tokenizer are.
        max_seq_length: tokens of a text with its special tokens, as sentence-transformers cuts; None if unlimited.
        lower_case: texts are lowered before the tokenizer's own normalisation.
        all_layers: the outputs of all layers are handed on, not the last one's alone.
    """

    files: TransformerFiles
    max_seq_length: int | None
    lower_case: bool
    all_layers: bool = False


def read_transformer(files: TransformerFiles, *, saved: bool, chat: bool = True) -> TransformerModule:
    """Reads the transformer's folder.

    Args:
        files: where what is.
        saved: it belongs to a modules.json. Of a plain Hugging Face folder sentence-transformers reads no settings of
            its own, even if their file is there.
        chat: a plain folder's chat template counts, as in sentence-transformers; False takes texts as they are.

    Raises:
        CheckpointError: a file is unreadable, or a setting asks for what would give other vectors than ours.
    """
    config = Fields.read(files.config)
    config.require("single_vector_type", "mean")  # Dewey's code may add the first token's vector
    tokenizer = Fields.read_optional(files.tokenizer / "tokenizer_config.json")
    if not saved:
        if chat:
            _refuse_chat_template(files.tokenizer, tokenizer)
        return TransformerModule(files, _tokenizer_limit(tokenizer, config), False)
    settings = _settings(files.folder)
    _check_task(settings)
    arguments = {name: _arguments(settings, name) for name in HARMLESS}
    limit = _processing_limit(settings)
    if limit is None:
        limit = _module_limit(settings, arguments["tokenizer_args"], tokenizer, config)
    own = config.flag("output_hidden_states", default=False)
    return TransformerModule(
        files,
        limit,
        lower_case=settings.flag("do_lower_case", default=False),
        all_layers=arguments["config_args"].flag("output_hidden_states", default=own),
    )


def settings_with_length(folder: Path, max_seq_length: int) -> tuple[Path, dict[str, Any]]:
    """The settings file of a saved transformer, and its object with another length wherever one is said that counts."""
    settings = _settings(folder)
    values: dict[str, Any] = {**copy.deepcopy(dict(settings.values)), "max_seq_length": max_seq_length}
    for name in ("tokenizer_args", NEW_NAMES["tokenizer_args"]):
        if "model_max_length" in (values.get(name) or {}):
            values[name]["model_max_length"] = max_seq_length
    for section in (values.get("processing_kwargs") or {}).values():
        if "max_length" in (section or {}):
            section["max_length"] = max_seq_length
    return settings.path, values


def _settings(folder: Path) -> Fields:
    for name in SETTINGS_FILES:
        fields = Fields.read_optional(folder / name)
        if fields.values:
            return fields
    return Fields(folder / SETTINGS_FILES[0], {})


def _check_task(settings: Fields) -> None:
    """Checks that texts go through the model as plain text and leave it as token vectors."""
    settings.require("transformer_task", "feature-extraction")
    for name in ("query_length", "document_length", "query_expansion", "tokenizer_name_or_path"):
        if settings.values.get(name) is not None:
            raise settings.wrong(name, "is not supported")
    if settings.values.get("modality_config") is None:
        return  # before 5.4 there was only text, whatever module_output_name says
    settings.require("module_output_name", "token_embeddings")
    modalities = settings.table("modality_config")
    if "message" in modalities.values:
        raise modalities.wrong("message", "asks for texts to be put into a chat template, which is not supported")
    if "text" not in modalities.values:
        raise modalities.wrong("text", "is missing; only models of text are supported")
    text = modalities.table("text")
    text.require("method", "forward")
    text.require("method_output_name", "last_hidden_state")


def _refuse_chat_template(folder: Path, tokenizer: Fields) -> None:
    """Since 5.4, sentence-transformers puts every text of such a plain folder into the template."""
    names = ("chat_template.jinja", "chat_template.json")
    place = next((folder / name for name in names if (folder / name).exists()), None)
    if place is None and tokenizer.values.get("chat_template") is not None:
        place = tokenizer.path
    if place is not None:
        raise CheckpointError(
            f"{place} holds a chat template and {folder} has no modules.json, so sentence-transformers would put texts "
            'into the template, which is not supported; Encoder(..., pooling="lasttoken"), or another pooling that you '
            "choose, takes the texts as they are, and its save makes a folder that says so."
        )


def _arguments(settings: Fields, name: str) -> Fields:
    """The keyword arguments that a checkpoint passes on, under their older or newer name."""
    name = name if name in settings.values else NEW_NAMES[name]
    older = next((old for old, new in NEW_NAMES.items() if new == name), name)
    arguments = settings.table(name)
    for key, value in arguments.values.items():
        if key not in HARMLESS[older] and value is not None:
            raise arguments.wrong(key, "is not supported")
    return arguments


def _processing_limit(settings: Fields) -> int | None:
    """The length that the tokenizer's own call asks for, which outweighs every other."""
    limit = None
    processing = settings.table("processing_kwargs")
    for section in (processing.table("text"), processing.table("common")):
        for key, value in section.values.items():
            if key not in PROCESSING or (key == "truncation" and value not in TRUNCATIONS):
                raise section.wrong(key, f"is {value!r}, which is not supported")
        limit = section.optional_integer("max_length") or limit
    return limit


def _module_limit(settings: Fields, arguments: Fields, tokenizer: Fields, config: Fields) -> int | None:
    """An explicit length is not capped by the positions of the model; the tokenizer's own is."""
    if "model_max_length" in arguments.values:
        return _bounded(arguments, "model_max_length")
    limit = settings.optional_integer("max_seq_length")
    if limit is not None:
        return None if limit >= UNLIMITED else limit
    return _tokenizer_limit(tokenizer, config)


def _tokenizer_limit(tokenizer: Fields, config: Fields) -> int | None:
    name = "model_max_length" if "model_max_length" in tokenizer.values else "max_len"
    limits = [_bounded(tokenizer, name)]
    model_type = config.optional_text("model_type") or ""
    field = POSITION_FIELDS.get(model_type, "max_position_embeddings")
    if model_type != "xlnet" and config.values.get(field) != -1:  # XLNet has no last position
        limits.append(config.optional_integer(field))
    given = [limit for limit in limits if limit is not None]
    return min(given) if given else None


def _bounded(fields: Fields, name: str) -> int | None:
    """A length that may be written as 1e30."""
    value = fields.values.get(name)
    if value is None:
        return None
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise fields.wrong(name, f"must be a number, not {json_kind(value)}")
    if math.isnan(value) or value < 1:
        raise fields.wrong(name, f"must be at least 1, not {value}")
    return None if value >= UNLIMITED else int(value)
