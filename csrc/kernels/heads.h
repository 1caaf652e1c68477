// finish_heads: queries and keys after their projection are normalised, turned by their position, and scaled.
#pragma once

#include "left.h"
#include "rows.h"
#include "table.h"
#include "vector.h"

namespace longspan {
namespace {

constexpr long kMostHeadSize = 512;
constexpr long kMomentRows = 32;  // rows whose moments are kept at a time

// Turns pairs (i, i + half) of a head.
inline void turn_halves(float* x, const float* cosines, const float* sines, long half) {
  for (long i = 0; i < half; i += W) {
    const int n = (int)min_long(W, half - i);
    const V a = load_some(x + i, n), b = load_some(x + half + i, n);
    const V c = load_some(cosines + i, n), s = load_some(sines + i, n);
    store_some(x + i, fma(a, c, -(b * s)), n);
    store_some(x + half + i, fma(b, c, a * s), n);
  }
}

// Turns pairs (2i, 2i + 1) of a head, each product and sum with one rounding on every tier. Compilers make vectors of this
// loop, as fast as shuffles by hand.
inline void turn_neighbours(float* x, const float* cosines, const float* sines, long half) {
  for (long i = 0; i < half; i++) {
    const float a = x[2 * i], b = x[2 * i + 1];
    x[2 * i] = __builtin_fmaf(a, cosines[i], -(b * sines[i]));
    x[2 * i + 1] = __builtin_fmaf(b, cosines[i], a * sines[i]);
  }
}

// The heads of queries, keys or values: [heads, tokens, size].
struct Heads {
  const Matrix& data;  // [heads * tokens, size]
  long heads;
  const float *weight, *bias;
  bool turned;
  const float* scale;
};

// The moments of one token over all heads, as if they lay side by side. A head size is a multiple of 8.
inline Moments whole_moments(const HeadsArgs& args, const Heads& heads, long row) {
  const long size = args.head_size, width = heads.heads * size;
  float mean = 0.0f;
  if (args.kind == NormKind::layer) {
    for (long head = 0; head < heads.heads; head++)
      mean += row_sum(size, [&](long i, int n) { return load_from(heads.data, head * args.tokens + row, i, n); });
    mean /= (float)width;
  }
  float squares = 0.0f;
  for (long head = 0; head < heads.heads; head++)
    squares += row_sum(size, [&](long i, int n) {
      const V d = keep_n(load_from(heads.data, head * args.tokens + row, i, n) - broadcast(mean), n);
      return d * d;
    });
  return {mean, 1.0f / __builtin_sqrtf(squares / (float)width + args.eps)};
}

// One head of one token, [size] float32, in place.
inline void finish_head(const HeadsArgs& args, const Heads& heads, long head, long row, const Moments* whole, float* x) {
  const long size = args.head_size;
  if (args.normalised) {
    const long column = whole ? head * size : 0;
    const Moments m = whole ? *whole : moments(size, args.kind, args.eps, [&](long i, int n) { return load_some(x + i, n); });
    const float* weight = heads.weight ? heads.weight + column : nullptr;
    const float* bias = heads.bias ? heads.bias + column : nullptr;
    for (long i = 0; i < size; i += W) {
      const int n = (int)min_long(W, size - i);
      store_some(x + i, normalised(load_some(x + i, n), m, weight, bias, i, n), n);
    }
  }
  if (heads.turned && args.rope_rows) {
    const long half = args.rope_size / 2;
    const float* cosines = args.rope_table + args.rope_rows[row] * args.rope_size;
    (args.interleaved ? turn_neighbours : turn_halves)(x, cosines, cosines + half, half);
  }
  if (heads.scale)
    for (long i = 0; i < size; i += W) {
      const int n = (int)min_long(W, size - i);
      store_some(x + i, load_some(x + i, n) * broadcast(heads.scale[row]), n);
    }
}

inline void finish(const HeadsArgs& args, const Heads& heads, bool whole, long row0, long row1) {
  Moments of_rows[kMomentRows];
  for (long first = row0; first < row1; first += kMomentRows) {
    const long last = min_long(first + kMomentRows, row1);
    if (whole)
      for (long row = first; row < last; row++) of_rows[row - first] = whole_moments(args, heads, row);
    for (long head = 0; head < heads.heads; head++)
      for (long row = first; row < last; row++) {
        const long at = head * args.tokens + row;
        alignas(64) float wide[kMostHeadSize];
        float* const x = heads.data.bf16 ? wide : heads.data.row(at);
        if (heads.data.bf16) copy_row(heads.data.from(at), args.head_size, args.head_size, x);
        finish_head(args, heads, head, row, whole ? of_rows + (row - first) : nullptr, x);
        if (heads.data.bf16) copy_row({wide, args.head_size}, args.head_size, args.head_size, heads.data.bf16_row(at));
      }
  }
}

void finish_heads(const HeadsArgs& args, long row0, long row1) {
  const bool whole = args.normalised && args.whole;
  finish(args, {args.q, args.heads, args.q_weight, args.q_bias, true, args.q_scale}, whole, row0, row1);
  finish(args, {args.k, args.kv_heads, args.k_weight, args.k_bias, true, nullptr}, whole, row0, row1);
  if (args.values) finish(args, {args.v, args.kv_heads, nullptr, nullptr, false, nullptr}, false, row0, row1);
}

}  // namespace
}  // namespace longspan
