// embed and norm: one row at a time.
#pragma once

#include "half.h"
#include "narrow.h"
#include "table.h"
#include "vector.h"

namespace longspan {
namespace {

// out = row * scale, or out += row.
template <bool add, Dtype dtype>
inline void take_row_of(const Table& table, long index, float* out, float scale) {
  const long width = table.width, first = index * width;
  const auto take = [&, data = table.data](long i, int n) {
    const V row = load_elements<dtype>(data, first + i, n);
    store_some(out + i, add ? load_some(out + i, n) + row : row * broadcast(scale), n);
  };
  long i = 0;
  for (; i + W <= width; i += W) take(i, W);
  if (i < width) take(i, (int)(width - i));
}

template <bool add>
inline void take_row(const Table& table, long index, float* out, float scale = 1.0f) {
  switch (table.dtype) {
    case Dtype::float32: return take_row_of<add, Dtype::float32>(table, index, out, scale);
    case Dtype::float16: return take_row_of<add, Dtype::float16>(table, index, out, scale);
    case Dtype::bfloat16: return take_row_of<add, Dtype::bfloat16>(table, index, out, scale);
  }
}

// out += what row `index` of a table gains, times scale.
inline void take_gain(const TableGain& gain, long index, long width, float* out, float scale) {
  const long rank = gain.left.width;
  for (long r = 0; r < rank; r++) {
    const V factor = broadcast(element(gain.left.data, gain.left.dtype, (gain.first + index) * rank + r) * (gain.scale * scale));
    for (long i = 0; i < width; i += W) {
      const int n = (int)min_long(W, width - i);
      store_some(out + i, fma(factor, load_some(gain.right + r * width + i, n), load_some(out + i, n)), n);
    }
  }
}

void embed(const EmbedArgs& args, long row0, long row1) {
  const long width = args.out.stride;
  for (long row = row0; row < row1; row++) {
    float* out = args.out.row(row);
    if (args.tokens.present()) take_row<false>(args.tokens, args.ids[row], out, args.scale);
    else __builtin_memset(out, 0, width * sizeof(float));
    if (args.tokens_gain.left.present()) take_gain(args.tokens_gain, args.ids[row], width, out, args.scale);
    if (args.position_table.present()) take_row<true>(args.position_table, args.positions[row] + args.position_offset, out);
    if (args.types.present()) take_row<true>(args.types, 0, out);
    if (args.types_gain.left.present()) take_gain(args.types_gain, 0, width, out, 1.0f);
  }
}

// Sum of `term` over [0, width) as four interleaved vector chains, combined in a fixed order.
template <class Term>
inline float row_sum(long width, Term term) {
  V sums[4] = {zero(), zero(), zero(), zero()};
  long i = 0;
  for (; i + 4 * W <= width; i += 4 * W)
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) sums[j] += term(i + j * W, W);
  for (int j = 0; i < width; i += W, j++) sums[j] += term(i, (int)min_long(W, width - i));
  return sum_lanes((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// `v` in the first n lanes, zero in the others.
inline V keep_n(V v, int n) {
  if (n == W) return v;
  float lanes[W];
  store(lanes, v);
  return load_n(lanes, n);
}

// What a row is normalised with: (x - mean) * inverse.
struct Moments {
  float mean, inverse;
};

template <class Row>
inline Moments moments(long width, NormKind kind, float eps, Row row) {
  const float mean = kind == NormKind::layer ? row_sum(width, row) / (float)width : 0.0f;
  const float variance = row_sum(width, [&](long i, int n) {
                           V d = keep_n(row(i, n) - broadcast(mean), n);
                           return d * d;
                         }) / (float)width;
  return {mean, 1.0f / __builtin_sqrtf(variance + eps)};
}

// (x - mean) * inverse * weight + bias, for up to W columns from `i` on.
inline V normalised(V x, const Moments& m, const float* weight, const float* bias, long i, int n) {
  V y = (x - broadcast(m.mean)) * broadcast(m.inverse);
  if (weight) y = y * load_some(weight + i, n);
  if (bias) y = y + load_some(bias + i, n);
  return y;
}

void norm(const NormArgs& args, long row0, long row1) {
  const long width = args.width;
  for (long row = row0; row < row1; row++) {
    const float* x = args.x.row(row);
    const float* residual = args.residual.data ? args.residual.row(row) : nullptr;
    const Moments m = moments(width, args.kind, args.eps, [&](long i, int n) { return load_some(x + i, n); });
    for (long i = 0; i < width; i += W) {
      const int n = (int)min_long(W, width - i);
      V y = normalised(load_some(x + i, n), m, args.weight, args.bias, i, n);
      if (residual) y += load_some(residual + i, n);
      store_to(args.out, row, i, y * broadcast(args.scale), n);
    }
  }
}

}  // namespace
}  // namespace longspan
