"""What an executor holds in memory, and what a batch will take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..checkpoint.panels import PackedView, panel_file
from ..checkpoint.tensor_view import TensorView
from ..program.instructions import Embed
from ..program.program import Program
from .ways import Way

TableKind = Literal["tokens", "positions", "types"]


@dataclass(frozen=True, slots=True)
class Table:
    """An embedding table, which stays in the file.

    Attributes:
        kind: what its rows stand for.
        rows, row_bytes: its size.
        file: where it lies.
    """

    kind: TableKind
    rows: int
    row_bytes: int
    file: Path


@dataclass(frozen=True, slots=True)
class Footprint:
    """Sizes in bytes, and the choices behind them.

    Attributes:
        tier: of instructions.
        threads: how many work.
        schedule: "packs" where each thread runs packs of its own, "shared" where all run one together, or "both".
        pack_tokens: the most tokens of a pack.
        weights: packed ones of the body and the tail, in memory now.
        ropes: sines and cosines of rotary positions.
        arena: what the batch needs.
        arena_now: what earlier batches have left.
        tables: the embedding tables.
        tables_mapped: whether their pages come into memory; else rows are read from the file as they are needed.
        panels: those that stay in the mapped file; they all come into memory.
        way: how the batch is run.
        stages: bytes of each stage's weights, where a file is read for them stage by stage; else nothing.
        streamed: of these, what is in memory at most.
        streamed_now: of these, what is in memory.
    """

    tier: str
    threads: int
    schedule: Literal["packs", "shared", "both"]
    pack_tokens: int
    weights: int
    ropes: int
    arena: int
    arena_now: int
    tables: tuple[Table, ...]
    tables_mapped: bool = True
    panels: int = 0
    way: Way = Way()
    stages: tuple[int, ...] = ()
    streamed: int = 0
    streamed_now: int = 0


def tables_of(program: Program, tensors: Mapping[str, TensorView]) -> Iterator[Table]:
    """The tables of a program's `embed` instructions."""
    kinds: tuple[TableKind, ...] = ("tokens", "positions", "types")
    for step in program.instructions:
        if isinstance(step, Embed):
            for kind in kinds:
                weight = getattr(step, kind)
                if weight is not None:
                    view = tensors[weight.names[0]]
                    yield Table(kind, view.shape[0], view.data.nbytes // view.shape[0], view.file)
            if step.tokens is not None and step.tokens_low_rank is not None:  # one task's rows go with the tokens'
                view = tensors[step.tokens_low_rank.left.names[0]]
                rows = step.tokens.shape[0]
                yield Table("tokens", rows, view.data.nbytes // (rows * step.tokens_low_rank.tasks), view.file)


def panel_bytes(program: Program, tensors: Mapping[str, TensorView]) -> int:
    """The bytes of a program's matrices that its file holds in panels."""
    held = panel_file(tensors.values())
    if held is None:
        return 0
    packed = {weight.key for weight in program.weights if isinstance(tensors[weight.names[0]], PackedView)}
    return sum(part.nbytes for key in packed for part in held.parts(key).values())
