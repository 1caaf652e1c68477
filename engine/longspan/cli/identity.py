"""What a run depends on, as a small JSON object: two runs with the same identity give the same bytes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..checks import one_of
from ..errors import InputError
from .sources import Source

Identity = Mapping[str, Any]


def identity_of(options: Mapping[str, Any], model: Sequence[Path], device: str, sources: Sequence[Source]) -> Identity:
    """The options that shape the output, the model, the machine's arithmetic, the inputs."""
    from .. import __version__

    return {
        **options,
        "model": model_fingerprint(model),
        "version of longspan": __version__,
        "device": device if device != "cpu" else f"cpu {instruction_tier()}",
        "inputs": inputs_fingerprint(sources),
    }


def instruction_tier() -> str:
    """The tier of instructions that the CPU executor uses by default: the best that the system lets this process use.

    Raises:
        InputError: the environment's LONGSPAN_ISA asks for another than this machine has, or than the system allows.
    """
    from .. import _csrc
    from ..executors.tiers import wanted_tier

    wanted = wanted_tier()
    if wanted:
        one_of(wanted, _csrc.tiers(), "LONGSPAN_ISA")
    try:
        return _csrc.Program([], -1, wanted).isa
    except ValueError as error:
        raise InputError(f"LONGSPAN_ISA is {wanted!r}, but {error}.") from error


def model_fingerprint(places: Sequence[Path]) -> str:
    """Names, sizes and times of a model's files; not their places, so that it may be named in several ways."""
    return _hash([line for place in places for line in _files(place)])


def _files(folder: Path) -> Iterator[tuple[str, int, int]]:
    for at, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            status = Path(at, name).stat()
            yield os.path.relpath(os.path.join(at, name), folder), status.st_size, status.st_mtime_ns


def inputs_fingerprint(sources: Sequence[Source]) -> str:
    """Names, sizes and times of the inputs; of standard input its contents."""
    return _hash([(s.name, s.kind, s.size, s.modified, hashlib.sha256(s.data).hexdigest()) for s in sources])


def _hash(value: object) -> str:
    return hashlib.sha256(repr(value).encode("utf-8", "backslashreplace")).hexdigest()


def differences(old: Identity, new: Identity) -> str:
    """What differs, for messages: "chunk-tokens 128 instead of 256, other inputs"."""
    words = []
    for name in dict.fromkeys((*old, *new)):
        before, now = old.get(name), new.get(name)
        if before != now:
            told = f"{name.replace('_', '-')} {_word(before)} instead of {_word(now)}"
            words.append(f"other {name}" if name in ("model", "inputs") else told)
    return ", ".join(words)


def _word(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "none" if value is None else str(value)
