"""The tensors of a checkpoint; those of safetensors files as views into the mapped file: nothing is copied."""

from __future__ import annotations

import difflib
import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath

import numpy as np

from ..errors import CheckpointError, CheckpointNotFoundError
from . import panels, pickled
from .config import Fields
from .header import NUMPY_TYPES, Entry, read_header
from .tensor_view import TensorView

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


class Tensors(Mapping[str, TensorView]):
    """The tensors of a checkpoint by name, whichever files they lie in."""

    def __init__(self, source: Path, views: Mapping[str, TensorView]) -> None:
        """`source` is the file or folder that the names belong to, for messages."""
        self.source = source
        self._views = dict(views)

    @classmethod
    def open(cls, folder: Path) -> Tensors:
        """Maps the weights, in panels or as checkpoints have them, in one file or in shards; else reads pickled ones.

        Raises:
            CheckpointNotFoundError: the folder holds no weights, or a shard is missing.
            CheckpointError: the weights are damaged, contradict the index, or are pickled and torch does not read them.
        """
        if (folder / panels.FILE).exists():
            path = folder / panels.FILE
            return cls(path, panels.open_panels(path, *_map_file(path)))
        if (folder / WEIGHTS).exists():
            return cls.open_file(folder / WEIGHTS)
        if (folder / INDEX).exists():
            return cls(folder, _open_shards(folder / INDEX, _open_file))
        if (folder / pickled.WEIGHTS).exists():
            return cls(folder, pickled.open_pickled(folder / pickled.WEIGHTS))
        if (folder / pickled.INDEX).exists():
            return cls(folder, _open_shards(folder / pickled.INDEX, pickled.open_pickled))
        raise _missing(folder, folder / WEIGHTS)

    @classmethod
    def open_file(cls, path: Path) -> Tensors:
        """Maps one safetensors file; raises as `open`."""
        if not path.exists():
            raise _missing(path.parent, path)
        return cls(path, _open_file(path))

    def __getitem__(self, name: str) -> TensorView:
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    def require(self, name: str, shape: Sequence[int]) -> TensorView:
        """The tensor of that name and shape.

        Raises:
            CheckpointError: there is no such tensor, or it has another shape.
        """
        view = self._views.get(name)
        if view is None:
            close = difflib.get_close_matches(name, self._views, n=3)
            hint = f"; the closest names are {', '.join(repr(other) for other in close)}" if close else ""
            raise CheckpointError(f"{self.source} has no tensor {name!r}{hint}.")
        if view.shape != tuple(shape):
            raise CheckpointError(
                f"{view.file}: tensor {name!r} has the shape {list(view.shape)}, but {list(shape)} is expected."
            )
        return view


def holds_weights(folder: Path) -> bool:
    """Whether `Tensors.open` would find something there."""
    names = (panels.FILE, WEIGHTS, INDEX, pickled.WEIGHTS, pickled.INDEX)
    return any((folder / name).exists() for name in names)


def _open_file(path: Path) -> dict[str, TensorView]:
    return _map_file(path)[0]


def _map_file(path: Path) -> tuple[dict[str, TensorView], Mapping[str, object]]:
    """The tensors of a file by their names in it, and its metadata."""
    try:
        with path.open("rb") as stream:
            if stream.seek(0, 2) == 0:  # which cannot be mapped
                raise CheckpointError(f"{path} is empty; download it again.")
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
    header = read_header(path, memoryview(mapped))
    return {entry.name: _view(path, mapped, entry) for entry in header.entries}, header.metadata


def _view(path: Path, mapped: mmap.mmap, entry: Entry) -> TensorView:
    dtype = np.dtype(NUMPY_TYPES[entry.dtype])
    count = (entry.end - entry.start) // dtype.itemsize
    # frombuffer refuses an offset at the very end of the file, where an empty tensor may lie.
    data = np.frombuffer(mapped, dtype, count, entry.start) if count else np.zeros(0, dtype)
    if not count or entry.start % dtype.itemsize:
        data = data.copy()
        data.flags.writeable = False
    try:
        data = data.reshape(entry.shape)
    except (ValueError, OverflowError) as error:  # more dimensions than numpy has, or an empty tensor of huge sides
        raise CheckpointError(
            f"{path}: tensor {entry.name!r} has the shape {list(entry.shape)}, which numpy cannot hold: {error}."
        ) from error
    return TensorView(entry.name, entry.dtype, entry.shape, data, path, mapped, entry.start)


def _open_shards(index: Path, open_file: Callable[[Path], dict[str, TensorView]]) -> dict[str, TensorView]:
    fields = Fields.read(index)
    weight_map = fields.table("weight_map")
    if not weight_map.values:
        raise fields.wrong("weight_map", "is missing or empty; it must name the shard of each tensor")
    shards: dict[str, dict[str, TensorView]] = {}
    views: dict[str, TensorView] = {}
    for name in weight_map.values:
        shard = weight_map.optional_text(name)
        if shard is None or not _is_inside(shard):
            raise weight_map.wrong(name, f"must name a file inside the folder, not {shard!r}")
        path = index.parent / shard
        if shard not in shards:
            if not path.exists():
                raise CheckpointNotFoundError(f"{path} does not exist, but {index.name} names it; download it again.")
            shards[shard] = open_file(path)
        if name not in shards[shard]:
            raise CheckpointError(f"{path} has no tensor {name!r}, but {index.name} says so; download both again.")
        views[name] = shards[shard][name]
    return views


def _is_inside(name: str) -> bool:
    """Whether a path in an index stays in its folder, by the rules of either kind of separator."""
    path = PureWindowsPath(name)
    return bool(path.parts) and not path.anchor and ".." not in path.parts and "\0" not in name


def _missing(folder: Path, wanted: Path) -> CheckpointError:
    """The error for absent weights, which tells apart loose shards and nothing at all."""
    if any(folder.glob("model-*-of-*.safetensors")):
        return CheckpointNotFoundError(f"{folder} holds shards but no {INDEX}; download it too.")
    return CheckpointNotFoundError(f"{wanted} does not exist, nor {INDEX} beside it; the folder has no weights.")
