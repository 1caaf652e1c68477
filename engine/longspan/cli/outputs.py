"""Shards to the output: npz, JSONL or Parquet, one shard at a time in memory, the same bytes at any time of day."""

from __future__ import annotations

import importlib
import importlib.util
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ..batch import Int64
from ..errors import InputError
from ..pooling.precision import Precision, Ranges, Vectors, empty_vectors, to_precision
from .shards import Journal, Shard

_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can hold


@dataclass(frozen=True, slots=True)
class Layout:
    """What the vectors are.

    Attributes:
        levels: the chunk sizes; none where texts are not chunked.
        precision: of the vectors in the output; shards hold float32.
        dimension: of the vectors.
        ranges: calibrated ones for int8 and uint8; None to take those of the vectors.
    """

    levels: tuple[int, ...]
    precision: Precision
    dimension: int
    ranges: Ranges | None = None


def format_of(output: Path, name: str | None) -> str:
    """The format, by name or by the output's suffix.

    Raises:
        InputError: the suffix tells nothing, or a package is missing.
    """
    suffixes = {".npz": "npz", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
    chosen = name or suffixes.get(output.suffix.lower())
    if chosen is None:
        raise InputError(f"{output}: the format is not clear from the name; give --format {' or '.join(WRITERS)}")
    if chosen == "parquet" and importlib.util.find_spec("pyarrow") is None:
        raise InputError("Parquet needs pyarrow: pip install 'longspan[arrow]'")
    return chosen


def write_output(file: IO[bytes], journal: Journal, layout: Layout, name: str) -> None:
    """Write the journal's shards to a seekable file.

    Raises:
        InputError: int8 or uint8 without calibrated ranges, of fewer than two vectors or of one that is not finite.
    """
    ranges = layout.ranges or _ranges(journal) if layout.precision in ("int8", "uint8") else None
    WRITERS[name](file, journal, layout, ranges)


def _ranges(journal: Journal) -> Ranges:
    """The least and greatest value of each component over all vectors."""
    extremes = [
        np.stack([shard.vectors.min(0), shard.vectors.max(0)]) for shard in journal.shards() if len(shard.vectors)
    ]
    count = sum(int(shard.counts.sum()) for shard in journal.shards(vectors=False))
    if count < 2:
        raise InputError(f"int8 and uint8 fix their ranges by the vectors, at least 2; there {_are(count)}")
    both = np.stack(extremes)
    if not np.isfinite(both).all():
        raise InputError("int8 and uint8 need finite vectors, and one is not")
    return Ranges(both[:, 0].min(0), both[:, 1].max(0))


def _are(count: int) -> str:
    return "is 1" if count == 1 else "are none"


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where each of a shard's m vectors belongs: [m] each.

    Attributes:
        document: within the shard.
        level: index of the chunk size.
        chunk: within its document and level.
    """

    document: Int64
    level: Int64
    chunk: Int64

    @classmethod
    def of(cls, shard: Shard) -> Places:
        """From the counts."""
        counts = shard.counts.ravel()
        owner = np.repeat(np.arange(len(counts)), counts)
        chunk = np.arange(len(owner)) - (np.cumsum(counts) - counts)[owner]
        levels = shard.counts.shape[1]
        return cls(owner // levels, owner % levels, chunk)


# --- npz -----------------------------------------------------------------------------------------------------------


def _write_npz(file: IO[bytes], journal: Journal, layout: Layout, ranges: Ranges | None) -> None:
    """vectors, ids; of chunks document and spans, and chunk_tokens of several levels; of int8 and uint8 low, high."""
    documents, vectors, longest = 0, 0, 1
    for shard in journal.shards(vectors=False):
        documents += len(shard.ids)
        vectors += int(shard.counts.sum())
        longest = max(longest, *map(len, shard.ids))
    empty = empty_vectors(0, layout.dimension, layout.precision)
    text = np.dtype(f"<U{longest}")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        parts: Iterable[Vectors] = (to_precision(s.vectors, layout.precision, ranges) for s in journal.shards())
        _entry(archive, "vectors", empty.dtype, (vectors, empty.shape[1]), parts)
        _entry(archive, "ids", text, (documents,), (np.array(s.ids, text) for s in journal.shards(vectors=False)))
        if layout.levels:
            _entry(archive, "document", np.dtype("<i8"), (vectors,), _documents(journal.shards(vectors=False)))
            _entry(archive, "spans", np.dtype("<i8"), (vectors, 2), (s.spans for s in journal.shards(vectors=False)))
        if len(layout.levels) > 1:
            sizes = np.array(layout.levels, "<i8")
            _entry(
                archive,
                "chunk_tokens",
                sizes.dtype,
                (vectors,),
                (sizes[Places.of(s).level] for s in journal.shards(vectors=False)),
            )
        if ranges is not None:
            for name, values in (("low", ranges.low), ("high", ranges.high)):
                _entry(archive, name, values.dtype, values.shape, [values])


def _documents(shards: Iterator[Shard]) -> Iterator[Int64]:
    before = 0
    for shard in shards:
        yield Places.of(shard).document + before
        before += len(shard.ids)


def _entry(
    archive: zipfile.ZipFile,
    name: str,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    parts: Iterable[npt.NDArray[Any]],
) -> None:
    """One array, from its parts along the first axis."""
    info = zipfile.ZipInfo(f"{name}.npy", _DATE)
    info.external_attr = 0o644 << 16
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    with archive.open(info, "w", force_zip64=True) as entry:
        np.lib.format.write_array_header_1_0(entry, header)
        for part in parts:
            entry.write(np.ascontiguousarray(part, dtype).tobytes())


# --- JSONL ---------------------------------------------------------------------------------------------------------


def _write_jsonl(file: IO[bytes], journal: Journal, layout: Layout, ranges: Ranges | None) -> None:
    """One object per vector: id; of a chunk its number, span and, of several levels, its level's size; embedding."""
    for shard in journal.shards():
        vectors = to_precision(shard.vectors, layout.precision, ranges)
        for about, vector in zip(_about(shard, layout.levels), vectors, strict=True):
            start = json.dumps(about, ensure_ascii=False)
            file.write(f'{start[:-1]}, "embedding": [{_numbers(vector)}]}}\n'.encode())


def _about(shard: Shard, levels: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    places = Places.of(shard)
    for row, document in enumerate(places.document.tolist()):
        about: dict[str, Any] = {"id": shard.ids[document]}
        if levels:
            start, end = shard.spans[row].tolist()
            about |= {"chunk": int(places.chunk[row]), "start": start, "end": end}
        if len(levels) > 1:
            about["chunk_tokens"] = levels[int(places.level[row])]
        yield about


def _numbers(vector: Vectors) -> str:
    """Nine digits tell every float32 from its neighbours; JSON has no NaN."""
    if vector.dtype != np.float32:
        return ", ".join(map(str, vector.tolist()))
    return ", ".join([f"{value:.9g}" if value - value == 0 else "null" for value in vector.tolist()])


# --- Parquet -------------------------------------------------------------------------------------------------------


def _write_parquet(file: IO[bytes], journal: Journal, layout: Layout, ranges: Ranges | None) -> None:
    """The columns of JSONL; of int8 and uint8 the ranges as metadata."""
    arrow: Any = importlib.import_module("pyarrow")
    parquet: Any = importlib.import_module("pyarrow.parquet")
    empty = empty_vectors(0, layout.dimension, layout.precision)
    vector_type = arrow.list_(arrow.from_numpy_dtype(empty.dtype), empty.shape[1])
    columns = [("id", arrow.string())]
    if layout.levels:
        columns += [("chunk", arrow.int64()), ("start", arrow.int64()), ("end", arrow.int64())]
    if len(layout.levels) > 1:
        columns.append(("chunk_tokens", arrow.int64()))
    schema = arrow.schema([*columns, ("embedding", vector_type)])
    if ranges is not None:
        schema = schema.with_metadata(
            {"low": json.dumps(ranges.low.tolist()), "high": json.dumps(ranges.high.tolist())}
        )
    with parquet.ParquetWriter(file, schema) as writer:
        for shard in journal.shards():
            flat = to_precision(shard.vectors, layout.precision, ranges).ravel()
            vectors = arrow.FixedSizeListArray.from_arrays(arrow.array(flat), empty.shape[1])
            rows = list(_about(shard, layout.levels))
            values = [arrow.array([row[name] for row in rows], kind) for name, kind in columns]
            writer.write_table(arrow.Table.from_arrays([*values, vectors], schema=schema))


WRITERS: dict[str, Callable[[IO[bytes], Journal, Layout, Ranges | None], None]] = {
    "npz": _write_npz,
    "jsonl": _write_jsonl,
    "parquet": _write_parquet,
}
