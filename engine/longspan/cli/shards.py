"""The journal of a run: finished work in numbered shards beside the output, so that an interrupted run continues.

    OUTPUT.partial/lock             held while a run is at work
    OUTPUT.partial/manifest.json    what the run depends on
    OUTPUT.partial/00000000.npz     the vectors of the first group of documents, and so on
    OUTPUT.partial/result           the output, being put together from the shards
    OUTPUT.partial/finished.json    the manifest and the totals, once `result` is whole; then that is moved to OUTPUT

Every file is written under another name, synced and renamed, so whatever is there under its own name is whole. The
process may be killed at any moment.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..batch import Float32, Int64
from ..errors import InputError
from ..syncing import sync_file, sync_folder
from .identity import Identity, differences

_LOCK, _MANIFEST, _FINISHED, _RESULT = "lock", "manifest.json", "finished.json", "result"
_OWN = re.compile(r"(\d{8}\.npz|result|manifest\.json)(\.tmp)?|finished\.json\.tmp")


@dataclass(frozen=True, slots=True, eq=False)
class Shard:
    """What became of one group of documents.

    Attributes:
        ids: of the n documents.
        counts: [n, levels] vectors of each document, by level; one level of one vector where texts are not chunked.
        vectors: [m, d] by document, then level.
        spans: [m, 2] code points; [0, 2] where texts are not chunked.
        long: how many documents are longer than the model's maximum.
        tokens: of the documents; None where they were not counted.
    """

    ids: Sequence[str]
    counts: Int64
    vectors: Float32
    spans: Int64
    long: int
    tokens: int | None


class Journal:
    """The folder of one output. Use `open_journal`, which holds the lock.

    Attributes:
        output: the file to be.
        count: how many shards there are.
        totals: of a finished run, what `finish` was told; else empty.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = partial_folder(output)
        self.count = 0
        self.totals: Mapping[str, Any] = {}

    # --- beginning -------------------------------------------------------------------------------------------------

    def begin(self, identity: Identity, overwrite: bool) -> None:
        """Continue what is there if it is of the same run, else start afresh.

        Raises:
            InputError: the output exists, or an interrupted run of another command has work here.
        """
        identity = json.loads(json.dumps(identity))
        done = self._read(_FINISHED)
        before = done.get("identity") or self._read(_MANIFEST)
        changes = differences(before, identity)
        # A run that was killed while it tidied up has made the output already; that is no reason to refuse.
        if self.output.exists() and not overwrite and not (self.finished and not changes):
            raise InputError(f"{self.output} exists; give --overwrite to replace it")
        if before and changes and self._count() and not overwrite:
            raise InputError(
                f"{self.folder} holds an interrupted run with {changes}; repeat that command to continue it, or give "
                "--overwrite to start over"
            )
        lost = self.finished and not (self.folder / _RESULT).exists() and not self.output.exists()
        if changes or lost:
            (self.folder / _FINISHED).unlink(missing_ok=True)
            self._clear()
            self._write(_MANIFEST, lambda file: file.write(json.dumps(identity).encode()))
        self.count = self._count()
        self.totals = done["totals"] if self.finished else {}

    def _read(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        try:
            value = json.loads(path.read_bytes()) if path.exists() else {}
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise InputError(f"{path} is damaged; remove the folder")
        return value

    def _count(self) -> int:
        count = 0
        while self._shard(count).exists():
            count += 1
        return count

    # --- work ------------------------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether the output is whole, here or already at its place."""
        return (self.folder / _FINISHED).exists()

    def append(self, shard: Shard) -> None:
        """Keep one more group's vectors; they are on the disk when this returns."""
        about = json.dumps({"ids": list(shard.ids), "long": shard.long, "tokens": shard.tokens}).encode()

        def write(file: IO[bytes]) -> None:
            data = np.frombuffer(about, np.uint8)
            np.savez(file, about=data, counts=shard.counts, vectors=shard.vectors, spans=shard.spans)

        self._write(self._shard(self.count).name, write)
        self.count += 1

    def shards(self, *, vectors: bool = True) -> Iterator[Shard]:
        """All shards in order, one at a time in memory; without `vectors`, these are not read and [0, 0]."""
        none = np.zeros((0, 0), np.float32)
        for number in range(self.count):
            path = self._shard(number)
            try:
                with np.load(path) as arrays:
                    about = json.loads(arrays["about"].tobytes())
                    data = arrays["vectors"] if vectors else none
                    yield Shard(about["ids"], arrays["counts"], data, arrays["spans"], about["long"], about["tokens"])
            except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                raise InputError(f"{path} is damaged ({error}); give --overwrite to start over") from None

    def finish(self, write: Callable[[IO[bytes]], None], totals: Mapping[str, Any]) -> None:
        """Put the output together, move it to its place and remove the journal.

        The totals are for the run that finds the work finished, with shards that may be gone already.
        """
        if not self.finished:
            self._write(_RESULT, write)
            done = json.dumps({"identity": self._read(_MANIFEST), "totals": totals}).encode()
            self._write(_FINISHED, lambda file: file.write(done))
        if (self.folder / _RESULT).exists():
            os.replace(self.folder / _RESULT, self.output)
            sync_folder(self.output.parent)
        self.remove()

    # --- files -----------------------------------------------------------------------------------------------------

    def remove(self) -> None:
        """Remove the journal; the file that tells a finished run goes last."""
        self._clear()
        for name in (_FINISHED, _LOCK):
            (self.folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # somebody else's files stay, and their folder
            self.folder.rmdir()

    def _clear(self) -> None:
        for path in sorted(self.folder.iterdir()):
            if _OWN.fullmatch(path.name):
                path.unlink()

    def _shard(self, number: int) -> Path:
        return self.folder / f"{number:08d}.npz"

    def _write(self, name: str, write: Callable[[IO[bytes]], object]) -> None:
        temporary = self.folder / f"{name}.tmp"
        try:
            with temporary.open("wb") as file:
                write(file)
                sync_file(file)
            os.replace(temporary, self.folder / name)
        except BaseException as error:
            temporary.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.filename is None:  # a full disk is noticed in the middle
                error.filename = str(temporary)
            raise
        sync_folder(self.folder)


def partial_folder(output: Path) -> Path:
    """Where the work on an output is kept until it is whole."""
    return output.with_name(output.name + ".partial")


@contextlib.contextmanager
def open_journal(output: Path, identity: Identity, *, overwrite: bool) -> Iterator[Journal]:
    """The journal of an output; if the run ends early without any work done, nothing is left behind.

    Raises:
        InputError: see `Journal.begin`; or another process is at work on the same output.
    """
    journal = Journal(output)
    journal.folder.mkdir(exist_ok=True)
    with (journal.folder / _LOCK).open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another process is writing {output}") from None
        try:
            journal.begin(identity, overwrite)
            yield journal
        finally:
            if journal.folder.exists() and not journal.finished and not journal._count():
                journal.remove()
