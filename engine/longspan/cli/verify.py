"""`longspan verify`: a model's vectors beside those of sentence-transformers or transformers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .options import add_command, add_json, add_model
from .terminal import fields, show, show_json

if TYPE_CHECKING:
    from ..batch import Float32
    from ..encoder import Encoder

LIMITS: Mapping[str, float] = {"auto": 0.9999, "float32": 0.9999, "bfloat16": 0.9999, "int8": 0.99}
"""The least cosine by the format of the weights."""

BUCKETS = (0, 17, 65, 257, 513, 2049, 8193, 1 << 62)

DESCRIPTION = f"""\
Embeds texts of many lengths with Longspan and with a reference, in float32, and compares: the least and the mean
cosine by tokens of the text. What exceeds the model's maximum is cut in both. The exit code is 1 if a cosine is below
{LIMITS["auto"]}, or with --weights int8 below {LIMITS["int8"]}."""
EXAMPLE = "example:\n  longspan verify sentence-transformers/all-MiniLM-L6-v2 --texts queries.txt"


def add_parser(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    parser = add_command(
        commands, "verify", run, "compare with sentence-transformers or transformers", DESCRIPTION, EXAMPLE
    )
    add_model(parser, option=False)
    parser.add_argument("--texts", type=Path, metavar="FILE", help="a text per line (default: built-in texts)")
    parser.add_argument(
        "--reference",
        choices=("sentence-transformers", "transformers"),
        default="sentence-transformers",
        help="transformers: its forward pass, and the checkpoint's pooling (default: sentence-transformers)",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from ..checkpoint.extras import read_extras
    from ..checkpoint.folder import resolve
    from ..encoder import Encoder
    from .reference import load

    embed = load(args.reference)
    folder = resolve(args.model)
    weights = read_extras(folder).weights
    if weights is not None:
        raise InputError(f"{folder} is in {weights} for Longspan alone: verify the checkpoint that it was made of")
    encoder = Encoder(folder, weights=args.weights, long_text="truncate", threads=args.threads)
    texts = built_in_texts(encoder.max_seq_length) if args.texts is None else _lines_of(args.texts)
    ours, lengths = _ours(encoder, texts, "" if args.reference == "transformers" else None)
    rows = list(_buckets(_cosines(ours, embed(folder, texts, encoder.max_seq_length)), lengths))
    least = min(row["min"] for row in rows)
    report = {
        "model": args.model,
        "reference": args.reference,
        "limit": LIMITS[args.weights],
        "texts": len(texts),
        "min": least,
        "mean": sum(row["mean"] * row["texts"] for row in rows) / len(texts),
        "ok": least >= LIMITS[args.weights],
        "lengths": rows,
    }
    if args.json:
        show_json(report)
    else:
        _show(report)
    return 0 if report["ok"] else 1


def _lines_of(path: Path) -> list[str]:
    try:
        texts = [line for line in path.read_bytes().decode("utf-8-sig").split("\n") if line.strip()]
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start})") from None
    if not texts:
        raise InputError(f"{path} holds no text")
    return texts


def _ours(encoder: Encoder, texts: Sequence[str], prompt: str | None) -> tuple[Float32, list[int]]:
    import warnings

    from ..errors import LongTextWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LongTextWarning)  # cutting is the point here
        vectors, usages = encoder.encode(texts, prompt=prompt, show_progress_bar=False, return_usage=True)
    return vectors, [usage.n_tokens for usage in usages]


def _cosines(a: Float32, b: Float32) -> list[float]:
    import numpy as np

    if a.shape != b.shape:
        raise InputError(f"the vectors have the shape {list(a.shape)}, the reference's {list(b.shape)}")
    left, right = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosines = (left * right).sum(1) / np.maximum(lengths, 1e-300)
    # Two zero vectors are the same; a NaN is as wrong as can be.
    cosines = np.where((left == right).all(1), 1.0, np.nan_to_num(cosines, nan=-1.0))
    result: list[float] = cosines.tolist()
    return result


def _buckets(cosines: Sequence[float], lengths: Sequence[int]) -> Iterator[dict[str, Any]]:
    for low, high in pairwise(BUCKETS):
        mine = [cosine for cosine, length in zip(cosines, lengths, strict=True) if low <= length < high]
        if mine:
            name = f"{low}-{high - 1}" if high < BUCKETS[-1] else f"{low}-"
            yield {"tokens": name, "texts": len(mine), "min": min(mine), "mean": sum(mine) / len(mine)}


def _show(report: dict[str, Any]) -> None:
    from ..program.printing import table

    rows = [[row["tokens"], str(row["texts"]), f"{row['min']:.7f}", f"{row['mean']:.7f}"] for row in report["lengths"]]
    show(fields([("model", report["model"]), ("reference", report["reference"])]))
    show(("", *table([("tokens", "texts", "least cosine", "mean"), *rows], right=(1, 2, 3)), ""))
    if report["ok"]:
        show([f"agrees: no cosine is below {report['limit']}"])
    else:
        show([f"DIFFERS: the least cosine, {report['min']:.7f}, is below {report['limit']}"])


# --- texts ---------------------------------------------------------------------------------------------------------

SENTENCES = (
    "The harbour was quiet, and the last boats came in before the rain.",
    "Under section 12(b), either party may terminate this agreement with thirty days' written notice.",
    "for (int i = 0; i < n; i++) total += values[i];  // O(n)",
    "Dr. Müller measured 3.7 mg/L on 2021-04-09; the limit is 5.0 mg/L.",
    "La bibliothèque ferme à dix-huit heures, sauf le jeudi.",
    "今日はとても天気がいいので、散歩に行きましょう。",
    "Мы встретились у старого моста, когда уже темнело.",
    "هذا الكتاب عن تاريخ البحر المتوسط.",
    "Emoji 😀👩‍👩‍👧 and a URL: https://example.org/a?b=c#d",
    "Stocks fell 2.4% on Tuesday as investors weighed the central bank's decision.",
)
WORDS = (1, 4, 12, 30, 60, 120, 200, 400)
VARIANTS = 3


def built_in_texts(max_seq_length: int) -> list[str]:
    """An empty text, texts from a word to some hundreds, and one that exceeds the model's maximum, if below 4,096."""
    words = " ".join(SENTENCES).split()
    counts = [count for count in WORDS for _ in range(VARIANTS)] + [min(max_seq_length, 4096) + 8]
    return ["", *(" ".join(words[(7 * i + j) % len(words)] for j in range(count)) for i, count in enumerate(counts))]
