"""Where a model lies: a folder as given, the Hugging Face cache on disk, or, as the last resort, a download."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import CheckpointError, CheckpointNotFoundError

DEFAULT_ORGANIZATION = "sentence-transformers"
# One of them makes a folder a model: a plain one, one of sentence-transformers, and an adapter of another model.
MARKERS = ("config.json", "modules.json", "adapter_config.json")
TRUE_VALUES = frozenset({"1", "ON", "YES", "TRUE"})
ALLOWED_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.tiktoken"]
IGNORED_FILES = ["onnx/*", "openvino/*", "gguf/*", "original/*", "*.bin", "*.onnx", "*.gguf", "*.h5", "consolidated*"]
HUB_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?")
COMMIT = re.compile(r"[0-9a-f]{40}")


def resolve(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_folder: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Path:
    """The folder of a model.

    A folder is used as it is. Another string is a hub id and is looked up in the cache on disk; a name without an
    organization is looked for under sentence-transformers first. Only what the cache lacks is downloaded.

    Args:
        model: a folder, or a hub id; a path object is always a folder.
        revision: a branch, a tag or a full commit hash of a hub id; None is "main".
        cache_folder: the cache's folder; None asks the environment as huggingface_hub does.
        local_files_only: never download; so does HF_HUB_OFFLINE=1.
        token: for a private model.

    Raises:
        CheckpointNotFoundError: there is no such folder, or no such model in the cache or on the hub.
        CheckpointError: it is a file, or a folder that holds no model.
    """
    name = os.fspath(model)
    if not name:
        raise CheckpointNotFoundError("The model's name is empty; give a folder or a hub id.")
    path = Path(os.path.expanduser(name))
    if os.path.isdir(path):  # os.path, since pathlib raises for a name that is too long
        return _checked(path)
    if os.path.exists(path):
        raise CheckpointError(f"{path} is a file; give the folder that holds the model.")
    if not isinstance(model, str) or _looks_like_path(name):
        raise CheckpointNotFoundError(f"{path} does not exist; it looks like a path, so it is not sought on the hub.")
    if not all(HUB_NAME.fullmatch(part) for part in name.split("/")) or "--" in name or ".." in name:
        raise CheckpointNotFoundError(f"'{name}' is neither a folder nor a hub id like 'organization/name'.")
    ids = [name] if "/" in name else [f"{DEFAULT_ORGANIZATION}/{name}", name]
    cache = _cache_folder(cache_folder)
    for hub_id in ids:
        snapshot = _cached(cache, hub_id, revision)
        if snapshot is not None:
            return snapshot
    if local_files_only or _is_offline():
        reason = "local_files_only is set" if local_files_only else "HF_HUB_OFFLINE is set"
        raise CheckpointNotFoundError(
            f"'{name}' (revision {revision or 'main'}) is neither a folder nor in the cache {cache}, and {reason}."
        )
    return _download(ids, revision, cache, token)


def find_model(model: str, revision: str | None) -> Path:
    """The folder of a model, by the environment's settings; raises as `resolve`."""
    return resolve(model, revision=revision)


def _checked(folder: Path) -> Path:
    if not _is_model(folder):
        raise CheckpointError(f"{folder} is not a model: it has none of {', '.join(MARKERS)}.")
    return folder


def _is_model(folder: Path) -> bool:
    return any((folder / marker).is_file() for marker in MARKERS)


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1 or "\\" in name


def _is_offline() -> bool:
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in TRUE_VALUES


def _cache_folder(given: str | os.PathLike[str] | None) -> Path:
    """The cache's folder: as given, else by the environment, in the order of sentence-transformers and its hub."""
    if given is not None:
        return Path(os.path.expanduser(given))
    for name in ("SENTENCE_TRANSFORMERS_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if value := os.environ.get(name):
            return _expanded(value)
    if value := os.environ.get("HF_HOME"):
        return _expanded(value) / "hub"
    return _expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface" / "hub"


def _expanded(value: str) -> Path:
    return Path(os.path.expandvars(os.path.expanduser(value)))


def _cached(cache: Path, hub_id: str, revision: str | None) -> Path | None:
    """The snapshot of a revision, if the cache holds its configuration."""
    repository = cache / f"models--{hub_id.replace('/', '--')}"
    reference = revision or "main"
    if COMMIT.fullmatch(reference):
        commit = reference
    elif ".." in reference.split("/") or reference.startswith("/"):
        return None
    else:
        try:
            commit = (repository / "refs" / reference).read_text().strip()
        except (OSError, ValueError):
            return None
    if not commit or Path(commit).name != commit:
        return None
    snapshot = repository / "snapshots" / commit
    return snapshot if _is_model(snapshot) else None


def _download(ids: list[str], revision: str | None, cache: Path, token: str | bool | None) -> Path:
    try:
        from huggingface_hub import snapshot_download  # 180 ms, and the usual path does without
        from huggingface_hub.errors import RepositoryNotFoundError
    except ImportError as error:
        raise CheckpointNotFoundError(
            f"'{ids[-1]}' is neither a folder nor in the cache {cache}; to download it, install huggingface_hub."
        ) from error
    for hub_id in ids:
        try:
            folder = snapshot_download(
                hub_id,
                revision=revision,
                cache_dir=str(cache),
                token=token,
                library_name="longspan",
                allow_patterns=ALLOWED_FILES,
                ignore_patterns=IGNORED_FILES,
            )
        except RepositoryNotFoundError as error:
            if hub_id == ids[-1]:
                raise CheckpointNotFoundError(
                    f"'{hub_id}' is neither a folder, nor in the cache {cache}, nor on the hub; if it is private, "
                    f"give a token: {error}"
                ) from error
        except Exception as error:  # its HTTP library may be either of two, with unrelated exceptions
            raise CheckpointNotFoundError(f"'{hub_id}' cannot be downloaded into {cache}: {error}") from error
        else:
            return _checked(Path(folder))
    raise AssertionError("unreachable: the last id returns or raises")
