"""The control groups of this process: each of them, and each of their ancestors, may set a limit."""

from __future__ import annotations

from pathlib import Path

ROOT, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def unified_folders(root: Path, own: Path) -> list[Path]:
    """Version 2: this process's cgroup and all its ancestors."""
    return _with_ancestors(root, _paths(own).get("", ""))


def controller_folders(controller: str, root: Path, own: Path) -> list[Path]:
    """Version 1: the same in the hierarchy of one controller."""
    return _with_ancestors(root / controller, _paths(own).get(controller, ""))


def _paths(own: Path) -> dict[str, str]:
    """By controller, "" for version 2."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return {}
    fields = (line.split(":", 2) for line in lines if line.count(":") >= 2)
    return {name: path.lstrip("/") for _, names, path in fields for name in names.split(",")}


def _with_ancestors(root: Path, path: str) -> list[Path]:
    folder = root / path
    return [folder, *(parent for parent in folder.parents if parent == root or root in parent.parents)]
