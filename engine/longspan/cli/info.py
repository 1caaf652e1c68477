"""`longspan info`: what a model is, and what runs it on this machine. No weights are packed."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .options import add_command, add_json, add_model, positive
from .terminal import fields, show, show_json

if TYPE_CHECKING:
    from ..checkpoint.recipe import TailModule
    from ..pipeline import Pipeline
    from ..program import instructions
    from ..program.instructions import Instruction
    from ..program.program import Program
    from ..weights import Format

DESCRIPTION = "Shows what a model is, how texts become vectors, and what runs each instruction on this machine."
EXAMPLE = "example:\n  longspan info sentence-transformers/all-MiniLM-L6-v2 --program"

_PANELS = "packed panels of 16 columns"
_LOW_RANK = "low-rank pairs by task"


def add_parser(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    parser = add_command(commands, "info", run, "what a model is, and what runs it here", DESCRIPTION, EXAMPLE)
    add_model(parser, option=False)
    parser.add_argument("--task", metavar="NAME", help="the route of a task, where the model has a Router")
    parser.add_argument("--extend", metavar="METHOD", help="with more positions, as Encoder(extend=METHOD)")
    parser.add_argument("--max-seq-length", type=positive, metavar="N", help="how many; with --extend only")
    parser.add_argument("--program", action="store_true", help="also print the programs, instruction by instruction")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from ..backbone import Changes
    from ..checkpoint.extras import Inside, read_extras
    from ..checkpoint.folder import resolve
    from ..pooling.modes import pool_kinds
    from ..program.formats import in_format
    from ..program.printing import format_program
    from ..routing import Routing
    from ..weights import FORMATS

    if args.max_seq_length is not None and args.extend is None:
        raise InputError("--max-seq-length says what --extend extends to: give both")
    folder = resolve(args.model)
    extras = read_extras(folder)
    changes = Changes.of(Inside(extend=args.extend, extend_to=args.max_seq_length), extras)
    routing = Routing.load(folder, lambda *_: None, changes)  # type: ignore[arg-type]
    pipeline = routing.main if args.task is None else routing.of(args.task)
    asked, held = next((known for known in FORMATS if known == args.weights), None), extras.weights
    if held is not None and asked not in (None, held):
        raise InputError(f"--weights is {asked}, but {folder} holds panels of {held}")
    weights = held or asked or "float32"
    body = in_format(pipeline.body.pooled(pool_kinds(pipeline.recipe.pooling)), weights)
    programs = [body, pipeline.tail(pipeline.dimension, pipeline.unit)]
    tasks = [task for task in routing.recipes.tasks if task is not None]
    model = {**_model(folder, pipeline, programs), "tasks": tasks, "weights": weights}
    about = {"model": model, "machine": _machine(args.threads)}
    int8_attention = None if held is None else _int8_attention(folder)
    instructions = list(_instructions(programs, weights, about["machine"], int8_attention))
    listings = [format_program(program) for program in programs] if args.program else []
    if args.json:
        show_json({**about, "instructions": instructions, **({"programs": listings} if listings else {})})
        return 0
    for title, values in about.items():
        show((f"{title}:", *(f"  {line}" for line in fields([(k, _words(v)) for k, v in values.items()])), ""))
    show(("instructions:", *(f"  {line}" for line in _table(instructions))))
    show(line for listing in listings for line in ("", *listing.splitlines()))
    return 0


def _model(folder: Path, pipeline: Pipeline, programs: list[Program]) -> dict[str, Any]:
    from ..checkpoint.config import read_json

    recipe, body = pipeline.recipe, pipeline.body
    weights = {weight for program in programs for weight in program.weights}
    return {
        "folder": str(folder),
        "type": body.name if recipe.static else read_json(recipe.files.config).get("model_type"),
        "layers": body.layers,
        "width": body.output.width,
        "parameters": sum(weight.size for weight in weights),
        "dimension": recipe.truncate_dim or pipeline.dimension,
        "max_seq_length": pipeline.own_length,
        "positions": pipeline.positions,
        "extension": body.extension,
        "pooling": list(recipe.pooling),
        "tail": [_module(module) for module in recipe.tail],
        "prompts": dict(recipe.prompts),
        "default_prompt_name": recipe.default_prompt_name,
        "separator": recipe.separator,
        "similarity": recipe.similarity_fn_name or "cosine",
    }


def _module(module: TailModule) -> str:
    """ "Dense 768 → 256 tanh", "LayerNorm", "Normalize"."""
    from ..checkpoint.recipe import DenseModule

    name = type(module).__name__.removesuffix("Module")
    if isinstance(module, DenseModule):
        return f"{name} {module.in_features} → {module.out_features} {module.activation}"
    return name


def _machine(threads: int | None) -> dict[str, Any]:
    from .. import _csrc
    from ..executors.choice import choose_executor
    from ..executors.threads import default_threads
    from .identity import instruction_tier

    device, _ = choose_executor(None, "auto", None, threads)
    tiers, count = _csrc.tiers(), default_threads() if threads is None else threads
    return {
        "device": device,
        "tier": instruction_tier(),
        "tiers": tiers,
        "threads": count,
        "schedule": _schedule(count) if device == "cpu" else None,
    }


def _schedule(threads: int) -> str:
    """Who runs what, in words."""
    from ..executors.schedule import LONG_SEGMENT, PACK_TOKENS

    own = f"packs of up to {PACK_TOKENS} tokens"
    if threads == 1:
        return f"{own}, one after another"
    return f"{own}, a thread each; all threads together where texts have {LONG_SEGMENT} tokens or packs are too few"


def _int8_attention(folder: Path) -> bool:
    """Whether a saved folder says that its model bears attention over bytes."""
    from ..checkpoint.panels import panel_file
    from ..checkpoint.tensors import Tensors

    panels = panel_file(Tensors.open(folder).values())
    return panels is not None and panels.int8_attention


def _instructions(
    programs: list[Program], weights: Format, machine: Mapping[str, Any], int8_attention: bool | None
) -> Iterator[dict[str, Any]]:
    """One entry per form of an instruction in a program: how often it occurs, its weights, what runs it.

    Forms of one kind follow each other, kinds and forms in the order in which they first occur.
    """
    device = machine["device"]
    for name, program in zip(("body", "tail"), programs, strict=True):
        forms: dict[str, dict[str, list[Instruction]]] = {}
        for step in program.instructions:
            runs = f"torch on {device}" if device != "cpu" else _runs(step, weights, machine["tier"], int8_attention)
            forms.setdefault(step.op, {}).setdefault(runs, []).append(step)
        for op, of_kind in forms.items():
            for runs, steps in of_kind.items():
                size = sum(weight.size for step in steps for weight in step.weights)
                yield {"program": name, "op": op, "count": len(steps), "weights": size, "runs": runs}


def _runs(step: Instruction, weights: Format, tier: str, int8_attention: bool | None) -> str:
    """What an instruction calculates in on the CPU, and how; of int8 attention what a saved folder says, or None."""
    from .. import _csrc
    from ..program.formats import Product
    from ..program.instructions import Attention, LatentAttention

    text = ", ".join(RUNS[step.op](step))
    if isinstance(step, LatentAttention):
        return f"C++ float32: {text}, {_csrc.how_products_run(tier, 'float32')}"
    if isinstance(step, Product):
        return f"C++ {step.format}: {text}, {_csrc.how_products_run(tier, step.format)}"
    if not isinstance(step, Attention):
        return f"C++ float32: {text}"
    faster = weights == "int8" and step.rope is None and _csrc.int8_attention_is_faster(tier)
    if faster and int8_attention is None:
        return f"C++ int8 if the sample texts bear it, else {step.q.dtype}: {text}"
    if faster and int8_attention:
        return f"C++ int8: {text}"
    wanted = step.q.dtype
    return f"C++ {wanted}: {text}, {_csrc.how_products_run(tier, wanted)}"


def _embed(step: instructions.Embed) -> Iterator[str]:
    yield "rows read from the mapped file"
    if step.position_map is not None:
        yield f"positions {step.position_map}"
    if step.tokens_low_rank is not None or step.types_low_rank is not None:
        yield _LOW_RANK


def _norm(step: instructions.Norm) -> Iterator[str]:
    yield f"{step.kind} norm row by row"
    if step.residual is not None:
        yield "with a residual"


def _linear(step: instructions.Linear) -> Iterator[str]:
    yield _PANELS
    if step.activation != "identity":
        yield step.activation
    if step.factor is not None:
        yield "times a factor"
    if step.low_rank is not None:
        yield _LOW_RANK


def _qkv(step: instructions.Qkv) -> Iterator[str]:
    yield f"one product, {_PANELS}"
    if step.low_rank is not None:
        yield _LOW_RANK
    after = {"normalised": step.norm, "turned": step.rope, "scaled by position": step.q_scale}
    finished = [word for word, given in after.items() if given is not None]
    if finished:
        yield f"then heads {' and '.join(finished)}"


def _attention(step: instructions.Attention) -> Iterator[str]:
    yield "flash-style, queries across the lanes"
    if step.left is None and step.right is None:
        yield "all keys"
    elif step.left is None and step.right == 0:
        yield "causal"
    else:
        sides = {"before": step.left, "after": step.right}
        yield " and ".join(f"{'all' if keys is None else keys} keys {side}" for side, keys in sides.items())
    biases = {
        "ALiBi": bool(step.slopes),
        "relative bias": step.relative is not None,
        "soft cap": step.soft_cap is not None,
        "sinks": step.sinks is not None,
    }
    yield from (word for word, given in biases.items() if given)
    if step.rope is not None:
        yield f"keys turned as they are read, near or in groups of {step.self_extend}"


def _mlp(step: instructions.Mlp) -> Iterator[str]:
    yield f"tile by tile, {_PANELS}"
    yield _activation(step)
    if any(pair is not None for pair in (step.up_low_rank, step.gate_low_rank, step.down_low_rank)):
        yield _LOW_RANK


def _moe(step: instructions.Moe) -> Iterator[str]:
    yield "router in float32"
    yield f"tile by tile each expert on the rows that chose it, {_PANELS}"
    yield f"{step.routing.chosen} of {step.routing.experts}"
    yield _activation(step)


def _activation(step: instructions.Mlp | instructions.Moe) -> str:
    return step.activation if step.gate is None else f"{step.activation} gate"


def _latent_attention(_: instructions.LatentAttention) -> Iterator[str]:
    yield "tile by tile, constant matrices multiplied with each other at load"
    yield _PANELS


def _tap(_: instructions.Tap) -> Iterator[str]:
    yield "row by row, a layer's share added to the mean"


def _pool(step: instructions.Pool) -> Iterator[str]:
    yield "ragged weighted segment sums" if step.kind == "sum" else "ragged segment maxima"


def _combine(step: instructions.Combine) -> Iterator[str]:
    yield f"partials in window order, {step.kind}"


def _normalize(step: instructions.Normalize) -> Iterator[str]:
    yield "cut and unit length in one step" if step.unit else "cut"


def _tanh_quantize(_: instructions.TanhQuantize) -> Iterator[str]:
    yield "row by row, tanh rounded to integers of 8 bits"


RUNS: Mapping[str, Callable[[Any], Iterator[str]]] = {
    "embed": _embed,
    "norm": _norm,
    "linear": _linear,
    "qkv": _qkv,
    "attention": _attention,
    "mlp": _mlp,
    "moe": _moe,
    "latentattention": _latent_attention,
    "tap": _tap,
    "pool": _pool,
    "combine": _combine,
    "normalize": _normalize,
    "tanhquantize": _tanh_quantize,
}
"""How the C++ executor runs each instruction, and what of it steps of one kind may differ in."""


def _table(instructions: list[dict[str, Any]]) -> Iterator[str]:
    from ..program.printing import table

    header = ("program", "op", "count", "weights", "runs")
    counts = ("count", "weights")
    rows = [[f"{entry[name]:,}" if name in counts else entry[name] for name in header] for entry in instructions]
    return table([header, *rows], right=(2, 3))


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {text!r}" for name, text in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value or "none")
