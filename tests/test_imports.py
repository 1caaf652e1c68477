"""What the way from a folder to a vector imports, with torch installed and without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "sentence_transformers", "huggingface_hub", "tqdm", "argparse", "importlib.metadata")

BROKEN = """
    import importlib.machinery, sys

    class Broken:  # these packages are there, and importing one of them is an error
        def find_spec(self, name, path=None, target=None):
            if name in ("torch", "transformers", "huggingface_hub", "tqdm"):
                return importlib.machinery.ModuleSpec(name, self)

        def create_module(self, spec):
            raise OSError(f"{spec.name} must not be imported")

        def exec_module(self, module):
            pass

    sys.meta_path.insert(0, Broken())
"""
HIDDEN = """
    import sys
    from importlib.machinery import PathFinder

    class Hidden(PathFinder):  # find_spec says None, as for a package that is not installed
        @classmethod
        def find_spec(cls, name, path=None, target=None):
            missing = name.partition(".")[0] in ("torch", "transformers", "huggingface_hub", "tqdm")
            return None if missing else PathFinder.find_spec(name, path, target)

    sys.meta_path[sys.meta_path.index(PathFinder)] = Hidden
"""
REPORT = """
    import json, sys
    print(json.dumps([name for name in json.loads(sys.argv[1]) if name in sys.modules]))
"""
ENCODE = """
    from longspan import Encoder
    encoder = Encoder(sys.argv[2])
    vector = encoder.encode("hello world")
    assert abs(vector[0] + 0.034478) < 2e-5
    encoder.encode_query(["a", ""])
    encoder.encode_document(["a", "b"], prompt="c")
    encoder.similarity(vector, vector)
    assert len(encoder.encode_chunks("Some text. " * 80, chunk_tokens=30)) > 5
"""


def loaded(*scripts: str, arguments: tuple[object, ...] = ()) -> list[str]:
    """Which heavy modules a fresh interpreter holds after the scripts."""
    source = "\n".join(textwrap.dedent(script) for script in ("import sys", *scripts, REPORT))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-W", "error", "-c", source, json.dumps(HEAVY), *map(str, arguments)]
    child = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert child.returncode == 0, child.stderr
    names: list[str] = json.loads(child.stdout)
    return names


def test_the_interpreter_alone_is_light() -> None:
    """Else the tests below would show nothing of ours."""
    assert loaded() == []
    assert loaded("import argparse") == ["argparse"]


@pytest.mark.parametrize("without", ["", BROKEN, HIDDEN], ids=["torch is there", "torch is broken", "no torch"])
def test_import_alone(without: str) -> None:
    assert loaded(without, "import longspan") == []


@pytest.mark.slow
@pytest.mark.parametrize("without", ["", BROKEN, HIDDEN], ids=["torch is there", "torch is broken", "no torch"])
def test_encoding(minilm: Path, without: str) -> None:
    assert loaded(without, ENCODE, arguments=(minilm,)) == []


def test_cached_hub_id(minilm: Path, tmp_path: Path) -> None:
    """A model in the hub's cache is found without huggingface_hub."""
    repository = tmp_path / "models--organization--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / ("0" * 40)).symlink_to(minilm)
    script = """
        from longspan import Encoder
        assert Encoder("organization/name", cache_folder=sys.argv[2]).encode("a").shape == (384,)
    """
    assert loaded(script, arguments=(tmp_path,)) == []


def test_progress_bar_is_what_needs_tqdm(minilm: Path) -> None:
    script = """
        from longspan import Encoder
        Encoder(sys.argv[2]).encode("a", show_progress_bar=True)
    """
    assert "tqdm" in loaded(script, arguments=(minilm,))
    assert "torch" not in loaded(script, arguments=(minilm,))


def test_torch_is_named_where_it_is_needed(minilm: Path) -> None:
    script = """
        from longspan import Encoder, InputError
        try:
            Encoder(sys.argv[2], backend="reference", device="cpu")
        except InputError as error:
            assert "needs torch" in str(error), error
        else:
            raise AssertionError("nothing was raised")
    """
    assert loaded(HIDDEN, script, arguments=(minilm,)) == []
