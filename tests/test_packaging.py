"""What a user installs: the wheel's and the source distribution's contents."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
IGNORED = shutil.ignore_patterns(".git", ".venv", "build", "dist", "__pycache__", ".*_cache", ".hypothesis", "*.so")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("c++") is None and shutil.which("g++") is None, reason="there is no C++ compiler"),
]


def build(source: Path, target: Path, kind: str) -> Path:
    """Build a "wheel" or an "sdist" from a source tree with the installed build tools, and return it."""
    command = f"import sys, scikit_build_core.build as backend; print(backend.build_{kind}(sys.argv[1]))"
    run = subprocess.run([sys.executable, "-c", command, str(target)], cwd=source, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-4000:]
    return target / run.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution of a clean copy of the repository."""
    source = tmp_path_factory.mktemp("source") / "longspan"
    shutil.copytree(ROOT, source, symlinks=True, ignore=IGNORED)
    return build(source, tmp_path_factory.mktemp("sdist"), "sdist")


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that the source distribution builds."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        # Older patch releases of Python know no filters.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(folder)
    (source,) = folder.iterdir()
    return build(source, tmp_path_factory.mktemp("wheel"), "wheel")


def test_sdist_holds_the_sources(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "CMakeLists.txt", "LICENSE", "README.md", "csrc/tiers/generic.cpp"} <= names
    assert {"engine/longspan/encoder.py", "triton_kernels/__init__.py"} <= names


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        files = {name for name in names if not name.endswith("/")}
    assert {name.split("/")[0].split("-")[0] for name in files} == {"longspan"}
    for name in ("__init__.py", "encoder.py", "py.typed", "_csrc.pyi", "triton_kernels/__init__.py", "models/bert.py"):
        assert f"longspan/{name}" in files
    (extension,) = [name for name in files if name.endswith(".so")]
    assert extension.startswith("longspan/_csrc.")
    assert not [name for name in files if name.endswith((".cpp", ".h", ".pyc"))]
    assert len(files) == len(names)
    assert not [name for name in files if "/tests/" in name or "/benchmarks/" in name]


def test_every_module_of_the_source_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = ROOT / "engine" / "longspan"
    for path in package.rglob("*.py"):
        assert f"longspan/{path.relative_to(package).as_posix()}" in names


def test_the_wheel_works_without_the_repository(wheel: Path, minilm: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); "
        "sys.meta_path[:] = [f for f in sys.meta_path if getattr(f, '__module__', '').startswith('_frozen')]; "
        "import longspan; "  # not the editable one, which has a finder of its own
        "assert longspan.__file__.startswith(sys.argv[1]), longspan.__file__; "
        "print(longspan.Encoder(sys.argv[2]).encode('hello world').shape)"
    )
    command = [sys.executable, "-I", "-c", script, str(tmp_path), str(minilm)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-4000:]
    assert run.stdout.strip() == "(384,)"


def test_the_version_is_the_same_everywhere(wheel: Path) -> None:
    import longspan

    assert wheel.name.split("-")[1] == longspan.__version__
