"""A body's weights as the CPU's kernels read them: a safetensors file of its own name, which only Longspan reads.

Of each matrix that products multiply with, `KEY.panels` is [panels, lines, 16, terms], I8 or BF16; of int8 there are
also `KEY.scales` and `KEY.totals`, F32 [columns padded to 16], and perhaps `KEY.smooth`, F32 [terms padded to 16].
`Panels` in csrc/kernels/table.h says what these are, and `Weight.key` what the key is; experts follow one another along
the first axis. All of them begin at multiples of 64 bytes. Other tensors have the names and types that they had in the
checkpoint. The metadata says

{"format": "longspan", "layout": "1", "weights": "int8", "attention": "int8",
 "packed": '{"layer.0.up.weight": ["F32", [1536, 384]], …}'}

where "packed" are the tensors of the checkpoint that are in panels now, and "attention" is there if the model bears
attention over bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import CheckpointError
from ..weights import Format
from .header import NUMPY_TYPES
from .tensor_view import TensorView

FILE = "longspan.safetensors"
FORMAT = "longspan"
LAYOUT = 1
PACKED_TYPES: Mapping[Format, str] = {"bfloat16": "BF16", "int8": "I8"}
"""The formats that are stored in panels, and the type of their tensors."""
PARTS = ("panels", "scales", "totals", "smooth")

KNOWN: Mapping[str, Callable[[npt.NDArray[Any]], npt.NDArray[np.bool_]]] = {
    "scales": lambda values: ~(values < 0) & ~np.isinf(values),  # of a column with a weight that is no number: NaN
    "totals": lambda values: np.isfinite(values) & (values == np.rint(values)),
    "smooth": lambda values: np.isfinite(values) & (values >= 0),
}
"""What the vectors beside panels may hold, number by number."""


@dataclass(frozen=True, slots=True)
class PanelFile:
    """The matrices of a file.

    Attributes:
        path: where they lie.
        format: of all of them.
        tensors: the file's, by their names there.
        int8_attention: whether the model bears attention over bytes.
    """

    path: Path
    format: Format
    tensors: Mapping[str, TensorView]
    int8_attention: bool

    def parts(self, key: str) -> dict[str, Any]:
        """The arrays of a matrix, by the words behind its key, views into the file.

        Raises:
            CheckpointError: there is no such matrix, or its vectors hold what no packed matrix has. The codes, almost
                all of the file, are not read.
        """
        found = {part: self.tensors[f"{key}.{part}"].data for part in PARTS if f"{key}.{part}" in self.tensors}
        if PARTS[0] not in found:
            raise CheckpointError(f"{self.path} has no tensor '{key}.{PARTS[0]}'.")
        for part, values in found.items():
            if part in KNOWN and values.dtype == np.float32 and not KNOWN[part](values).all():
                raise CheckpointError(
                    f"{self.path} is damaged: '{key}.{part}' holds numbers that no packed matrix has."
                )
        return found


class PackedView(TensorView):
    """A tensor of the checkpoint that a file holds in panels only, perhaps together with others; it has no `data`."""

    __slots__ = ("panels",)

    panels: PanelFile

    def __init__(self, name: str, dtype: str, shape: tuple[int, ...], panels: PanelFile) -> None:
        values = {"name": name, "dtype": dtype, "shape": shape, "file": panels.path, "panels": panels}
        for field, value in values.items():
            object.__setattr__(self, field, value)

    @property
    def data(self) -> Any:
        """Raises a CheckpointError."""
        raise CheckpointError(
            f"{self.file} holds {self.name!r} in panels of {self.panels.format}, which the CPU's kernels alone read as "
            "they are: for another device, backend or format, or an adapter, load the checkpoint that it was made of."
        )

    def release(self) -> None:
        """Nothing: kernels read the pages."""


def stacked(
    matrices: Sequence[Sequence[npt.NDArray[Any] | None]],
) -> Iterator[tuple[str, tuple[npt.NDArray[Any], ...], tuple[int, ...]]]:
    """The parts of a matrix, or of as many as there are experts, each with its arrays and the shape of them all."""
    for part, arrays in zip(PARTS, zip(*matrices, strict=True), strict=True):
        given = tuple(array for array in arrays if array is not None)
        if given:
            first, *others = given[0].shape
            yield part, given, (len(given) * first, *others)


def panel_file(views: Iterable[TensorView]) -> PanelFile | None:
    """The file in whose panels some of the tensors are."""
    return next((view.panels for view in views if isinstance(view, PackedView)), None)


def open_panels(path: Path, tensors: Mapping[str, TensorView], metadata: Mapping[str, object]) -> dict[str, TensorView]:
    """The tensors of a file under the checkpoint's names, those that are in panels as `PackedView`.

    Raises:
        CheckpointError: the metadata is not what such a file has, or is of a newer version.
    """
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path}: its metadata lacks 'format': '{FORMAT}'; save the model again.")
    if metadata.get("layout") != str(LAYOUT):
        raise CheckpointError(
            f"{path} is of layout {metadata.get('layout')!r}, and this version of Longspan reads {LAYOUT} only; "
            "upgrade it, or save the model again."
        )
    weights = next((known for known in PACKED_TYPES if known == metadata.get("weights")), None)
    if weights is None:
        known = ", ".join(PACKED_TYPES)
        raise CheckpointError(f"{path}: 'weights' is {metadata.get('weights')!r}; known are {known}.")
    attention = metadata.get("attention")
    if attention not in (None, "int8"):
        raise CheckpointError(f"{path}: 'attention' is {attention!r}, expected 'int8' or nothing.")
    panels = PanelFile(path, weights, tensors, attention == "int8")
    packed = {name: PackedView(name, dtype, shape, panels) for name, (dtype, shape) in _packed(path, metadata).items()}
    return packed | {name: view for name, view in tensors.items() if f"{_key(name)}.{PARTS[0]}" not in tensors}


def panel_metadata(weights: Format, packed: Mapping[str, TensorView], *, int8_attention: bool) -> dict[str, str]:
    """What `open_panels` reads."""
    listed = {name: [view.dtype, list(view.shape)] for name, view in packed.items()}
    attention = {"attention": "int8"} if int8_attention else {}
    return {"format": FORMAT, "layout": str(LAYOUT), "weights": weights, **attention, "packed": json.dumps(listed)}


def _key(name: str) -> str:
    return name.rpartition(".")[0]


def _packed(path: Path, metadata: Mapping[str, object]) -> dict[str, tuple[str, tuple[int, ...]]]:
    try:
        listed = json.loads(str(metadata.get("packed")))
        found = {str(name): (str(dtype), tuple(map(int, shape))) for name, (dtype, shape) in listed.items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: 'packed' in its metadata is damaged; save the model again.") from error
    if not {dtype for dtype, _ in found.values()} <= set(NUMPY_TYPES):
        raise CheckpointError(f"{path}: 'packed' in its metadata names an unknown type; save the model again.")
    return found
