"""What NomicBERT, GTE and Jina v3 share: BERT's layers with rotary positions, under several sets of names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..program.instructions import Embed, Instruction
from ..program.operands import Weight
from ..program.rope import Rope
from .blocks import Blocks, joined
from .family import Body, weight


@dataclass(frozen=True, slots=True)
class Names:
    """Of tensors, those of a layer behind `layer` and its number.

    Attributes:
        embedding_norm: after the embeddings.
        layer: of all layers.
        qkv: of the projections of queries, keys and values, or of the one that holds all three.
        output: of attention's output.
        attention_norm, mlp_norm: after attention's output, and after the MLP.
    """

    embedding_norm: str
    layer: str
    qkv: tuple[str, ...]
    output: str
    attention_norm: str
    mlp_norm: str


NATIVE = Names(
    embedding_norm="embeddings.LayerNorm",
    layer="layers",
    qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    output="self_attn.o_proj",
    attention_norm="post_attention_layernorm",
    mlp_norm="post_mlp_layernorm",
)
"""Those of transformers."""

MakeMlp = Callable[[int, int, str], Instruction]
"""Makes the MLP of a layer, x = mlp(x) + x, from its stage, its number from 0 on and its name."""


def rotary_bert(
    name: str,
    blocks: Blocks,
    names: Names,
    make_mlp: MakeMlp,
    *,
    layers: int,
    vocabulary: int,
    types: int,
    rope: Rope | None,
    bias: bool,
    max_positions: int,
    prefixes: Sequence[str],
    renamed: Sequence[tuple[str, str]] = (),
    learned_positions: int = 0,
) -> Body:
    """The body.

    Args:
        name: of the family.
        blocks: whose norms are those after the blocks; the one after the embeddings is a LayerNorm in any case.
        names: of the tensors.
        make_mlp: makes the MLPs.
        layers, vocabulary, types: how many there are; no types is possible.
        rope: the positions of queries and keys.
        bias: whether the projections around attention have biases.
        max_positions, prefixes, renamed: as in `Body`.
        learned_positions: how many positions have a learned vector; none in most.
    """
    x = blocks.x
    norm_bias = blocks.norm_kind == "layer"

    def layer(index: int) -> tuple[Instruction, ...]:
        stage, at = index + 1, f"{names.layer}.{index}"
        if len(names.qkv) == 1:
            projection = blocks.packed_projections(f"{at}.{names.qkv[0]}", bias)
        else:
            projection = blocks.projections(at, names.qkv, bias)
        return (
            *blocks.attention(stage, x, *projection, turned={"rope": rope}),
            blocks.output(stage, f"{at}.{names.output}", x, bias=bias, residual=x),
            blocks.norm(stage, f"{at}.{names.attention_norm}", x, x, bias=norm_bias),
            make_mlp(stage, index, f"{at}.mlp"),
            blocks.norm(stage, f"{at}.{names.mlp_norm}", x, x, bias=norm_bias),
        )

    def table(kind: str, rows: int) -> Weight | None:
        return weight(f"embeddings.{kind}_embeddings.weight", rows, x.width) if rows else None

    embed = Embed(
        stage=0,
        out=x,
        tokens=weight("embeddings.word_embeddings.weight", vocabulary, x.width),
        positions=table("position", learned_positions),
        types=table("token_type", types),
    )
    norm = replace(blocks, norm_kind="layer").norm(0, names.embedding_norm, x, x, bias=True)
    return Body(
        name,
        (embed, norm, *joined(*map(layer, range(layers)))),
        x,
        max_positions=max_positions,
        prefixes=tuple(prefixes),
        renamed=tuple(renamed),
    )
