"""What is taken of a body's layers: the first few of them, one before the last norm, or a weighted sum of all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..errors import InputError
from ..program.instructions import Instruction, Tap
from ..program.operands import Buffer, Weight
from .family import Body, tokens_buffer


@dataclass(frozen=True, slots=True)
class LayerChoice:
    """Which layers a caller wants; none of both means all of them.

    Attributes:
        layers: the first so many, then the last norm (2D Matryoshka, arXiv 2402.14776).
        tap: the output of one layer, without the last norm: 0 is the embedding, -1 the last layer.
    """

    layers: int | None = None
    tap: int | None = None


def choose_layers(body: Body, choice: LayerChoice) -> Body:
    """The body up to the layer that is wanted.

    Raises:
        InputError: there is no such layer, or both kinds of choice are made.
    """
    if choice.layers is not None and choice.tap is not None:
        raise InputError("give layers or tap, not both: a tap is of one layer, and nothing beyond it runs")
    if choice.layers is not None:
        if not 1 <= choice.layers <= body.layers:
            raise InputError(f"layers is {choice.layers}, expected 1 to the model's {body.layers}")
        return replace(body, instructions=_up_to(body, choice.layers))
    if choice.tap is not None:
        if not -body.layers - 1 <= choice.tap <= body.layers:
            raise InputError(f"tap is {choice.tap}, expected {-body.layers - 1} to the model's {body.layers} layers")
        layer = choice.tap % (body.layers + 1)
        return replace(body, instructions=_up_to(body, layer), ending=(), output=body.stream)
    return body


def _up_to(body: Body, layer: int) -> tuple[Instruction, ...]:
    return tuple(step for step in body.instructions if step.stage <= layer)


def weighted_layers(body: Body, weight: Weight, first: int) -> Body:
    """The body whose token vectors are the weighted mean of the outputs of layers `first` to L.

    Layer 0 is the embedding; the last layer's output goes through the body's ending.
    """
    total = tokens_buffer("layers", body.output.width)

    def tap(stage: int, x: Buffer, index: int) -> Tap:
        into = total if index else None
        return Tap(stage=stage, x=x, into=into, out=total, weight=weight, index=index)

    def steps() -> Iterator[Instruction]:
        for stage in range(body.layers + 1):
            yield from (step for step in body.instructions if step.stage == stage)
            if first <= stage < body.layers:
                yield tap(stage, body.stream, stage - first)

    ending = (*body.ending, tap(body.layers + 1, body.output, body.layers - first))
    return replace(body, instructions=tuple(steps()), ending=ending, output=total)
