"""Finding a model: folders, the cache on disk, and what must not be imported on the way."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest

from longspan.checkpoint.folder import IGNORED_FILES, resolve
from longspan.errors import CheckpointError, CheckpointNotFoundError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40
VARIABLES = (
    "SENTENCE_TRANSFORMERS_HOME",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "HF_HOME",
    "XDG_CACHE_HOME",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hub ids that a download was tried for; every one fails."""
    ids: list[str] = []

    def refuse(hub_id: str, **options: object) -> str:
        ids.append(hub_id)
        raise OSError("no network in tests")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    return ids


def make_model(folder: Path, marker: str = "config.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / marker).write_text("{}")
    return folder


def cache_model(cache: Path, hub_id: str, *, ref: str = "main", commit: str = COMMIT) -> Path:
    repository = cache / f"models--{hub_id.replace('/', '--')}"
    reference = repository / "refs" / ref
    reference.parent.mkdir(parents=True, exist_ok=True)
    reference.write_text(commit)
    return make_model(repository / "snapshots" / commit)


@pytest.mark.parametrize("marker", ["config.json", "modules.json"])
def test_folder_is_used_as_it_is(tmp_path: Path, marker: str) -> None:
    folder = make_model(tmp_path / "model", marker)
    assert resolve(folder) == folder
    assert resolve(str(folder)) == folder


def test_home_is_expanded(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "home" / "model")
    assert resolve("~/model") == folder


def test_folder_without_model_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none of config\.json, modules\.json") as caught:
        resolve(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_file_instead_of_folder(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.touch()
    with pytest.raises(CheckpointError, match="is a file"):
        resolve(file)


@pytest.mark.parametrize("name", ["./x", "../x", "/no/x", "x/y/z", "~/x", "~nobody-of-that-name/x", "x\\y", "x/", "."])
def test_missing_path_is_not_sought_on_the_hub(
    name: str, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError):
        resolve(name)
    assert asked == []


def test_missing_path_object_is_a_path(asked: list[str]) -> None:
    with pytest.raises(CheckpointNotFoundError, match="looks like a path"):
        resolve(Path("org/name"))
    assert asked == []


@pytest.mark.parametrize("name", ["", "a b", "org/na me", "org/-x", "a--b", "a..b", "x" * 5000 + "!", "a\0b"])
def test_impossible_names(name: str, asked: list[str]) -> None:
    with pytest.raises(CheckpointNotFoundError):
        resolve(name)
    assert asked == []


@pytest.mark.parametrize(
    ("variable", "below"),
    [
        ("SENTENCE_TRANSFORMERS_HOME", "."),
        ("HF_HUB_CACHE", "."),
        ("HUGGINGFACE_HUB_CACHE", "."),
        ("HF_HOME", "hub"),
        ("XDG_CACHE_HOME", "huggingface/hub"),
    ],
)
def test_cache_follows_the_environment(
    variable: str, below: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLACE", str(tmp_path))
    monkeypatch.setenv(variable, "$PLACE/cache")
    snapshot = cache_model(tmp_path / "cache" / below, "org/name")
    assert resolve("org/name") == snapshot


def test_cache_in_home(tmp_path: Path) -> None:
    snapshot = cache_model(tmp_path / "home/.cache/huggingface/hub", "org/name")
    assert resolve("org/name") == snapshot


def test_given_cache_outweighs_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "environment"))
    cache_model(tmp_path / "environment", "org/name")
    snapshot = cache_model(tmp_path / "given", "org/name")
    assert resolve("org/name", cache_folder=tmp_path / "given") == snapshot


def test_bare_name_means_sentence_transformers_first(tmp_path: Path) -> None:
    bare = cache_model(tmp_path, "name")
    assert resolve("name", cache_folder=tmp_path) == bare
    first = cache_model(tmp_path, "sentence-transformers/name")
    assert resolve("name", cache_folder=tmp_path) == first


@pytest.mark.parametrize("ref", ["v2", "refs/pr/1"])
def test_revisions(tmp_path: Path, ref: str) -> None:
    main = cache_model(tmp_path, "org/name")
    other = cache_model(tmp_path, "org/name", ref=ref, commit=OTHER)
    assert resolve("org/name", cache_folder=tmp_path) == main
    assert resolve("org/name", cache_folder=tmp_path, revision=ref) == other
    assert resolve("org/name", cache_folder=tmp_path, revision=OTHER) == other


@pytest.mark.parametrize("revision", ["../../../outside", "/etc/hostname", "absent", "0" * 40])
def test_revisions_that_the_cache_lacks(tmp_path: Path, revision: str) -> None:
    cache_model(tmp_path, "org/name")
    (tmp_path / "outside").write_text(COMMIT)
    with pytest.raises(CheckpointNotFoundError, match="local_files_only"):
        resolve("org/name", cache_folder=tmp_path, revision=revision, local_files_only=True)


def test_broken_snapshot_is_not_used(tmp_path: Path) -> None:
    snapshot = cache_model(tmp_path, "org/name")
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to("../../blobs/absent")
    with pytest.raises(CheckpointNotFoundError):
        resolve("org/name", cache_folder=tmp_path, local_files_only=True)


@pytest.mark.parametrize("value", ["1", "true", "YES"])
def test_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str], value: str) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    with pytest.raises(CheckpointNotFoundError, match="HF_HUB_OFFLINE"):
        resolve("org/name", cache_folder=tmp_path)
    assert asked == []


def test_failed_download_says_why(tmp_path: Path, asked: list[str]) -> None:
    with pytest.raises(CheckpointNotFoundError, match="no network in tests"):
        resolve("org/name", cache_folder=tmp_path)
    assert asked == ["org/name"]


def repository_not_found() -> Exception:
    error: type[Exception] = huggingface_hub.errors.RepositoryNotFoundError
    return error.__new__(error)  # its constructor wants a response of the HTTP library


def test_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, dict[str, object]]] = []

    def download(hub_id: str, **options: object) -> str:
        calls.append((hub_id, options))
        if "/" in hub_id:
            raise repository_not_found()
        return str(cache_model(tmp_path, hub_id))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    folder = resolve("name", cache_folder=tmp_path, revision="v1", token="secret")
    assert (folder / "config.json").exists()
    assert [hub_id for hub_id, _ in calls] == ["sentence-transformers/name", "name"]
    options = calls[-1][1]
    assert (options["revision"], options["token"], options["cache_dir"]) == ("v1", "secret", str(tmp_path))
    assert options["ignore_patterns"] == IGNORED_FILES


def test_download_takes_the_files_of_a_model_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["config.json", "model-1.safetensors", "1_Pooling/config.json", "vocab.txt", "spiece.model"]
    unwanted = [
        "pytorch_model.bin",
        "onnx/config.json",
        "onnx/model.onnx",
        "openvino/x.json",
        "x.gguf",
        "tf.h5",
        "x.py",
    ]

    def download(hub_id: str, *, allow_patterns: list[str], ignore_patterns: list[str], **_: object) -> str:
        files = huggingface_hub.utils.filter_repo_objects(
            wanted + unwanted, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
        )
        assert list(files) == wanted
        return str(make_model(tmp_path / "downloaded"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert resolve("org/name", cache_folder=tmp_path) == tmp_path / "downloaded"


def test_unknown_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(hub_id: str, **options: object) -> str:
        raise repository_not_found()

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(CheckpointNotFoundError, match="nor on the hub"):
        resolve("name", cache_folder=tmp_path)


def test_without_huggingface_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointNotFoundError, match="install huggingface_hub"):
        resolve("org/name", cache_folder=tmp_path)


@pytest.mark.parametrize("place", [make_model, lambda path: cache_model(path, "org/name")])
def test_local_path_imports_nothing_heavy(tmp_path: Path, place: Callable[[Path], Path]) -> None:
    found = place(tmp_path)
    model = str(tmp_path) if found == tmp_path else "org/name"
    code = f"""
import sys
from longspan.checkpoint.folder import resolve
import longspan.checkpoint.recipe, longspan.checkpoint.tensors
print(resolve({model!r}, cache_folder={str(tmp_path)!r}))
heavy = ("huggingface_hub", "tqdm", "importlib.metadata", "argparse", "torch", "transformers", "safetensors")
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == [str(found), "[]"]
