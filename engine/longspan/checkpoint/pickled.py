"""Weights in pytorch_model.bin, from before safetensors: read by torch, which unpickles tensors and runs no code."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from .tensor_view import TensorView

WEIGHTS = "pytorch_model.bin"
INDEX = "pytorch_model.bin.index.json"

# Named as in safetensors; numpy lacks bfloat16, which is seen as its bits.
_DTYPES = {
    "torch.float32": "F32",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.float64": "F64",
    "torch.int64": "I64",
    "torch.int32": "I32",
    "torch.int16": "I16",
    "torch.int8": "I8",
    "torch.uint8": "U8",
    "torch.bool": "BOOL",
}


def _check_torch(path: Path) -> None:
    if importlib.util.find_spec("torch") is None:
        raise CheckpointError(
            f"{path} holds pickled weights, which are read through torch: install torch, or convert "
            "them to safetensors: `model.save_pretrained(folder, safe_serialization=True)`."
        )


def open_pickled(path: Path) -> dict[str, TensorView]:
    """The tensors of one file.

    Raises:
        CheckpointError: torch is not installed, or refuses the file: it is damaged or holds more than tensors.
    """
    _check_torch(path)
    values = _load(path)
    if not isinstance(values, Mapping):
        raise CheckpointError(f"{path} holds {type(values).__name__} where a table of tensors is expected.")
    return {str(name): _view(path, str(name), tensor) for name, tensor in values.items()}


def _load(path: Path) -> Any:
    import torch

    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # files from before torch 1.6 cannot be mapped
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds: pickle's, zip's, torch's own
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"{path}: torch does not load it with weights_only: {reason}") from error


def _view(path: Path, name: str, tensor: Any) -> TensorView:
    import torch

    dtype = _DTYPES.get(str(getattr(tensor, "dtype", None)))
    if not isinstance(tensor, torch.Tensor) or dtype is None or tensor.layout != torch.strided:
        raise CheckpointError(f"{path}: {name!r} is no tensor of a type that can be read.")
    plain = tensor.detach().contiguous()
    data = plain.view(torch.int16).numpy().view("<u2") if dtype == "BF16" else plain.numpy()
    data.flags.writeable = False
    return TensorView(name, dtype, tuple(tensor.shape), data, path)
