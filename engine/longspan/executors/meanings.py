"""What each instruction means: plain torch, one short function per instruction.

Any dtype, any device. Matrix products run in the dtype of the weights; norms, softmax and pooling in float32, or in
float64 where the dtype is float64. No intermediate grows faster than linearly in the number of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..batch import PackedBatch, Partials
from ..program import instructions as ops
from ..program.instructions import Activation, NormKind
from ..program.operands import Buffer, LowRank, Weight
from ..program.relative import bias_buckets
from ..program.rope import RopeTables

MLP_ROWS = 4096
"""Rows of one tile of `mlp`: only so many rows of the intermediate matrix exist at a time."""

ATTENTION_ROWS = 1024
"""Most query rows that `attention` handles at a time."""

ATTENTION_SCORES = 1 << 25
"""Most scores that `attention` holds at a time; long segments take fewer query rows at a time."""

ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "relu": functional.relu,
    "silu": functional.silu,
    "tanh": torch.tanh,
}


Linear = Callable[[Tensor], Tensor]


def widened(x: Tensor) -> Tensor:
    """x in float32, or as it is if that is float64."""
    return x if x.dtype == torch.float64 else x.float()


@dataclass(frozen=True, slots=True)
class Run:
    """One execution: the buffers by name, and what the instructions need besides them."""

    buffers: dict[str, Tensor]
    weights: Mapping[Weight, Tensor]
    batch: PackedBatch
    ids: Tensor  # [T] int64, on the device
    positions: Tensor  # [T] int64, on the device
    ropes: RopeTables

    def __getitem__(self, buffer: Buffer) -> Tensor:
        return self.buffers[buffer.name]

    def __setitem__(self, buffer: Buffer, value: Tensor) -> None:
        if value.shape[1] != buffer.width:
            raise ValueError(f"{buffer} was given rows of width {value.shape[1]}")
        self.buffers[buffer.name] = value

    def plus(self, value: Tensor, residual: Buffer | None) -> Tensor:
        """value + residual, if there is one."""
        return value if residual is None else value + self[residual]

    def rows_of(self, values: Any, like: Tensor) -> Tensor:
        """A numpy array with dtype and device of `like`."""
        return torch.tensor(values, dtype=like.dtype, device=like.device)

    def weight(self, weight: Weight | None) -> Tensor | None:
        """A weight that an instruction may lack."""
        return None if weight is None else self.weights[weight]

    def pair(self, low_rank: LowRank | None) -> tuple[Tensor, Tensor] | None:
        """The scaled left and the right matrix of the batch's task, if it has one and there are such pairs."""
        if low_rank is None or self.batch.task is None:
            return None
        if not 0 <= self.batch.task < low_rank.tasks:
            raise ValueError(f"there is no task {self.batch.task} among {low_rank.tasks}")
        left, right = (self.weights[w].chunk(low_rank.tasks)[self.batch.task] for w in (low_rank.left, low_rank.right))
        return left * low_rank.scale, right

    def affine(self, weight: Weight, bias: Weight | None = None, low_rank: LowRank | None = None) -> Linear:
        """x -> x W^T + bias, with what W gains for the batch's task."""
        matrix, vector, pair = self.weights[weight], self.weight(bias), self.pair(low_rank)
        if pair is None:
            return affine(matrix, vector)
        left, right = pair
        return lambda x: functional.linear(x, matrix, vector) + functional.linear(functional.linear(x, right), left)

    def rows(self, table: Weight, low_rank: LowRank | None, index: Tensor) -> Tensor:
        """Rows of a table, with what it gains for the batch's task."""
        found, pair = self.weights[table][index], self.pair(low_rank)
        return found if pair is None else found + pair[0][index] @ pair[1]


# --- the body: rows are tokens -------------------------------------------------------------------------------------


def embed(op: ops.Embed, run: Run) -> None:
    """out[t] = tokens[ids[t]] * scale + positions[position[t] + position_offset] + types[0]; absent tables are zero."""
    given = next(run.weights[table] for table in (op.tokens, op.positions, op.types) if table is not None)
    x = given.new_zeros((len(run.ids), op.out.width))
    if op.tokens is not None:
        x = run.rows(op.tokens, op.tokens_low_rank, run.ids) * op.scale
    if op.positions is not None:
        rows = run.positions
        if op.position_map is not None:
            mapped = op.position_map.of_batch(run.batch.positions, run.batch.cu_seqlens)
            rows = torch.tensor(mapped, dtype=rows.dtype, device=rows.device)
        x = x + run.weights[op.positions][rows + op.position_offset]
    if op.types is not None:
        x = x + run.rows(op.types, op.types_low_rank, torch.zeros_like(run.ids))
    run[op.out] = x


def normalised(
    x: Tensor, kind: NormKind, eps: float, weight: Tensor | None, bias: Tensor | None, offset: float
) -> Tensor:
    """Layer or RMS normalisation over the last axis, in float32 or wider."""
    wide, weight, bias = widened(x), *(None if w is None else widened(w) for w in (weight, bias))
    centred = wide - wide.mean(-1, keepdim=True) if kind == "layer" else wide
    y = centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps)
    if weight is not None:
        y = y * (weight + offset)
    return y if bias is None else y + bias


def norm(op: ops.Norm, run: Run) -> None:
    """out = (normalised x * (weight + weight_offset) + bias + residual) * scale, row by row."""
    x = run[op.x]
    y = normalised(x, op.kind, op.eps, run.weight(op.weight), run.weight(op.bias), op.weight_offset)
    y = run.plus(y.to(x.dtype), op.residual)
    run[op.out] = y if op.scale is None else y * run.weights[op.scale]


def linear(op: ops.Linear, run: Run) -> None:
    """out = activation(x W^T + bias) * factor + residual."""
    y = ACTIVATIONS[op.activation](run.affine(op.weight, op.bias, op.low_rank)(run[op.x]))
    run[op.out] = run.plus(y if op.factor is None else y * run[op.factor], op.residual)


def by_head(x: Tensor, size: int) -> Tensor:
    """[T, heads * E] as [T, heads, E]."""
    return x.reshape(len(x), x.shape[1] // size, size)


def turned(x: Tensor, cosines: Tensor, sines: Tensor, interleaved: bool) -> Tensor:
    """x [T, heads, E] with its first R components turned pair by pair; cosines and sines are [T, 1, R / 2]."""
    size = 2 * cosines.shape[-1]
    head, rest = x[..., :size], x[..., size:]
    if interleaved:
        first, second = head[..., 0::2], head[..., 1::2]
    else:
        first, second = head[..., : size // 2], head[..., size // 2 :]
    pair = (first * cosines - second * sines, second * cosines + first * sines)
    both = torch.stack(pair, -1).flatten(-2) if interleaved else torch.cat(pair, -1)
    return torch.cat([both, rest], -1)


def qkv(op: ops.Qkv, run: Run) -> None:
    """q, k, v = the column blocks of x W^T + bias, of H*E, G*E and G*E columns, normalised and turned."""
    y = run.affine(op.weight, op.bias, op.low_rank)(run[op.x])
    queries, keys = op.heads * op.head_size, op.kv_heads * op.head_size
    q, k, v = y[:, :queries], y[:, queries : queries + keys], y[:, queries + keys :]
    if op.norm is not None:
        q = head_normalised(q, op, run, op.q_norm, op.q_norm_bias)
        k = head_normalised(k, op, run, op.k_norm, op.k_norm_bias)
        if op.norm.values:
            v = normalised(by_head(v, op.head_size), op.norm.kind, op.norm.eps, None, None, 0.0)
            v = v.flatten(1).to(y.dtype)
    if op.rope is not None:
        table = run.ropes.of_batch(op.rope, run.batch.positions, run.batch.cu_seqlens)
        cosines, sines = run.rows_of(table.values[table.rows], y)[:, None].chunk(2, -1)
        q, k = (turned(by_head(x, op.head_size), cosines, sines, op.rope.interleaved).flatten(1) for x in (q, k))
    if op.q_scale is not None:
        q = q * run.rows_of(op.q_scale.of_batch(run.batch.positions, run.batch.cu_seqlens), y)[:, None]
    run[op.q], run[op.k], run[op.v] = q, k, v


def head_normalised(x: Tensor, op: ops.Qkv, run: Run, weight: Weight | None, bias: Weight | None) -> Tensor:
    """Queries or keys [T, heads * E], normalised head by head or as a whole."""
    assert op.norm is not None
    parts = x if op.norm.whole else by_head(x, op.head_size)
    y = normalised(parts, op.norm.kind, op.norm.eps, run.weight(weight), run.weight(bias), op.norm.weight_offset)
    return y.to(x.dtype).reshape(x.shape)


def attention(op: ops.Attention, run: Run) -> None:
    """out = softmax(soft-capped(q k^T * scale) + bias) v over the keys that each query sees, within each segment."""

    def head_major(buffer: Buffer, heads: int) -> Tensor:  # [H, T, E]
        x = by_head(run[buffer], op.head_size).transpose(0, 1)
        return x.repeat_interleave(op.heads // heads, dim=0)

    q, k, v = head_major(op.q, op.heads), head_major(op.k, op.kv_heads), head_major(op.v, op.kv_heads)
    out = q.new_empty(q.shape)
    for start, end in pairwise(run.batch.cu_seqlens.tolist()):
        rows = max(1, min(ATTENTION_ROWS, ATTENTION_SCORES // (op.heads * max(1, end - start))))
        products = products_of(q[:, start:end], k[:, start:end], op, run)
        for first in range(0, end - start, rows):
            tile = slice(first, min(first + rows, end - start))
            queries = torch.arange(tile.start, tile.stop, device=q.device)
            distances = torch.arange(end - start, device=q.device) - queries[:, None]  # key - query
            scores = adjusted(widened(products(tile, distances)) * op.scale, distances, op, run)
            weights = softmax(scores, run.weight(op.sinks))
            out[:, start + tile.start : start + tile.stop] = weights.to(v.dtype) @ v[:, start:end]
    run[op.out] = out.transpose(0, 1).flatten(1)


def products_of(q: Tensor, k: Tensor, op: ops.Attention, run: Run) -> Callable[[slice, Tensor], Tensor]:
    """q k^T of one segment [H, n, E], for a slice of its queries and their distances [queries, n] to the keys."""
    if op.rope is None:
        return lambda tile, distances: q[:, tile] @ k.transpose(1, 2)
    assert op.self_extend is not None
    rope, extend, places = op.rope, op.self_extend, torch.arange(q.shape[1], device=q.device)
    table = run.ropes.of_batch(rope, run.batch.positions, run.batch.cu_seqlens).values
    cosines, sines = run.rows_of(table, q).chunk(2, -1)

    def at(x: Tensor, rows: Tensor) -> Tensor:  # x turned as at the positions `rows`
        return turned(x.transpose(0, 1), cosines[rows][:, None], sines[rows][:, None], rope.interleaved).transpose(0, 1)

    q_near, k_near = at(q, places), at(k, places)
    if q.shape[1] <= extend.original:
        return lambda tile, distances: q_near[:, tile] @ k_near.transpose(1, 2)
    groups, shift = places // extend.group, extend.shift
    k_far = at(k, groups + shift)  # all are moved by `shift`, so that no position is negative
    q_high, q_low = at(q, groups + 2 * shift), at(q, groups)  # for keys before the query, and after it

    def products(tile: slice, distances: Tensor) -> Tensor:
        near, before, after = (
            x[:, tile] @ y.transpose(1, 2) for x, y in ((q_near, k_near), (q_high, k_far), (q_low, k_far))
        )
        far = torch.where(distances < 0, before, after)
        return torch.where(distances.abs() < extend.near, near, far)

    return products


def adjusted(scores: Tensor, distances: Tensor, op: ops.Attention, run: Run) -> Tensor:
    """Scores [H, queries, keys] with soft cap, biases and mask; `distances` is [queries, keys]."""
    if op.soft_cap is not None:
        scores = op.soft_cap * torch.tanh(scores / op.soft_cap)
    if op.slopes:
        scores = scores - run.rows_of(op.slopes, scores)[:, None, None] * distances.abs()
    if op.relative is not None:
        assert op.relative_bias is not None
        reach = op.relative.max_distance
        table = widened(run.weights[op.relative_bias])[bias_buckets(op.relative, op.relative_bias.shape[0])]
        scores = scores + table[distances.clamp(-reach, reach) + reach].movedim(-1, 0)
    seen = torch.ones_like(distances, dtype=torch.bool)
    if op.left is not None:
        seen &= distances >= -op.left
    if op.right is not None:
        seen &= distances <= op.right
    return scores.masked_fill(~seen, -torch.inf)


def softmax(scores: Tensor, sinks: Tensor | None) -> Tensor:
    """Over the keys; sinks [H] take part in the sum alone."""
    if sinks is None:
        return torch.softmax(scores, dim=2)
    extra = widened(sinks)[:, None, None].expand(*scores.shape[:2], 1)
    return torch.softmax(torch.cat([scores, extra], 2), dim=2)[..., :-1]


def gated(x: Tensor, activation: Activation, up: Linear, gate: Linear | None) -> Tensor:
    """activation(up(x)), or activation(gate(x)) * up(x)."""
    act = ACTIVATIONS[activation]
    return act(up(x)) if gate is None else act(gate(x)) * up(x)


def mlp(op: ops.Mlp, run: Run) -> None:
    """out = h W^T + down_bias + residual, tile by tile; see `gated` for h."""
    x = run[op.x]
    up = run.affine(op.up, op.up_bias, op.up_low_rank)
    gate = None if op.gate is None else run.affine(op.gate, op.gate_bias, op.gate_low_rank)
    down = run.affine(op.down, op.down_bias, op.down_low_rank)
    out = x.new_empty((len(x), op.out.width))
    for first in range(0, len(x), MLP_ROWS):
        tile = slice(first, first + MLP_ROWS)
        out[tile] = down(gated(x[tile], op.activation, up, gate))
    run[op.out] = run.plus(out, op.residual)


def affine(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """x -> x W^T + bias."""
    return lambda x: functional.linear(x, weight, bias)


def moe(op: ops.Moe, run: Run) -> None:
    """out = sum over a token's experts, ascending, of their probability times their mlp, + out_bias + residual."""
    x, count = run[op.x], op.routing.experts
    logits = widened(functional.linear(x, run.weights[op.router]))
    chosen = choose(logits, op.routing)
    ups, downs = (run.weights[w].chunk(count) for w in (op.up, op.down))
    gates = None if op.gate is None else run.weights[op.gate].chunk(count)
    out = x.new_zeros((len(x), op.out.width))
    for expert in range(count):
        rows = chosen[:, expert].nonzero()[:, 0]
        gate = None if gates is None else affine(gates[expert])
        for first in range(0, len(rows), MLP_ROWS):
            part = rows[first : first + MLP_ROWS]
            y = affine(downs[expert])(gated(x[part], op.activation, affine(ups[expert]), gate))
            out[part] += y * chosen[part, expert, None].to(y.dtype)
    bias = run.weight(op.out_bias)
    run[op.out] = run.plus(out if bias is None else out + bias, op.residual)


def choose(logits: Tensor, routing: ops.Routing) -> Tensor:
    """The weight of each expert for each token [T, X], 0 where it is not chosen; of equal logits the first counts."""
    probabilities = torch.softmax(logits, 1)
    order = logits.sort(dim=1, descending=True, stable=True).indices[:, : routing.chosen]
    weights = torch.zeros_like(probabilities).scatter(1, order, probabilities.gather(1, order))
    return weights / weights.sum(1, keepdim=True) if routing.normalised else weights


def latent_attention(op: ops.LatentAttention, run: Run) -> None:
    """out = W_o softmax(q k^T * scale) v + residual, with q from x, and k and v from the normalised latents."""
    x = run[op.x]
    latents = normalised(run.weights[op.latents], "layer", op.eps, run.weight(op.norm), run.weight(op.norm_bias), 0.0)
    size = op.query.shape[0] // op.heads

    def head_major(rows: Tensor, projection: Weight) -> Tensor:  # [H, rows, E]
        return by_head(functional.linear(rows, run.weights[projection]), size).transpose(0, 1)

    keys, values = (head_major(latents.to(x.dtype), projection) for projection in (op.keys, op.values))
    out = x.new_empty((len(x), op.out.width))
    for first in range(0, len(x), ATTENTION_ROWS):
        tile = slice(first, first + ATTENTION_ROWS)
        scores = widened(head_major(x[tile], op.query) @ keys.transpose(1, 2)) * op.scale
        context = (torch.softmax(scores, dim=2).to(x.dtype) @ values).transpose(0, 1).flatten(1)
        out[tile] = functional.linear(context, run.weights[op.output])
    run[op.out] = run.plus(out, op.residual)


def tap(op: ops.Tap, run: Run) -> None:
    """out = weight[index] / sum(weight) * x, added to what `into` holds, if given."""
    weights = run.weights[op.weight]
    run[op.out] = run.plus(run[op.x] * (weights[op.index] / weights.sum()), op.into)


def row_weights(partials: Partials, p: int, like: Tensor) -> Tensor:
    """The weight of each row of partial p, [rows], with dtype and device of `like`."""
    rows = torch.arange(int(partials.ends[p] - partials.starts[p]), dtype=like.dtype, device=like.device)
    return float(partials.first_weight[p]) + rows * float(partials.weight_step[p])


def pool(op: ops.Pool, run: Run) -> None:
    """out[p] = the weighted sum, or the elementwise maximum, of the rows of partial p; without rows 0, or -inf."""
    x = widened(run[op.x])
    partials = run.batch.partials[op.index]
    out = x.new_full((partials.count, op.out.width), 0.0 if op.kind == "sum" else -torch.inf)
    for p, (start, end) in enumerate(zip(partials.starts.tolist(), partials.ends.tolist(), strict=True)):
        if start < end:
            out[p] = row_weights(partials, p, x) @ x[start:end] if op.kind == "sum" else x[start:end].amax(0)
    run[op.out] = out


# --- the tail: rows are vectors ------------------------------------------------------------------------------------


def combine(op: ops.Combine, run: Run) -> None:
    """out[n, column:] = the mean, the mean by the root of the length, or the maximum, of vector n's partials."""
    values = run[op.partials]
    partials = run.batch.partials[op.index]
    if op.out.name not in run.buffers:
        run[op.out] = values.new_zeros((partials.vectors, op.out.width))
    out = run[op.out][:, op.column : op.column + op.partials.width]
    for n, (start, end) in enumerate(pairwise(partials.cu_vectors.tolist())):
        if all(partials.starts[p] == partials.ends[p] for p in range(start, end)):
            out[n] = 0.0
        elif op.kind == "maximum":
            out[n] = values[start:end].amax(0)
        else:
            total = torch.stack([row_weights(partials, p, values).sum() for p in range(start, end)]).sum()
            out[n] = values[start:end].sum(0) / (total if op.kind == "mean" else total.sqrt())


def normalize(op: ops.Normalize, run: Run) -> None:
    """out = the first columns of x, divided by max(their length, 1e-12) if `unit`."""
    x = run[op.x][:, : op.out.width]
    run[op.out] = functional.normalize(x, dim=1, eps=1e-12) if op.unit else x


def tanh_quantize(op: ops.TanhQuantize, run: Run) -> None:
    """out = round(127 tanh(x)), ties to even."""
    run[op.out] = torch.round(127 * torch.tanh(run[op.x]))


MEANINGS: Mapping[type[ops.Instruction], Callable[[Any, Run], None]] = {
    ops.Embed: embed,
    ops.Norm: norm,
    ops.Linear: linear,
    ops.Qkv: qkv,
    ops.Attention: attention,
    ops.Mlp: mlp,
    ops.Moe: moe,
    ops.LatentAttention: latent_attention,
    ops.Tap: tap,
    ops.Pool: pool,
    ops.Combine: combine,
    ops.Normalize: normalize,
    ops.TanhQuantize: tanh_quantize,
}
