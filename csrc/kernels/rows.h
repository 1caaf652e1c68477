// embed and norm: one row at a time.
#pragma once

#include "half.h"
#include "table.h"
#include "vector.h"

namespace longspan {
namespace {

// out = row, or out += row.
template <bool add>
inline void take_row(const Table& table, long index, float* out) {
  const long width = table.width;
  switch (table.dtype) {
    case Dtype::float32: {
      const float* row = (const float*)table.data + index * width;
      for (long i = 0; i < width; i++) out[i] = add ? out[i] + row[i] : row[i];
      return;
    }
    case Dtype::float16: {
      const uint16_t* row = (const uint16_t*)table.data + index * width;
      for (long i = 0; i < width; i++) out[i] = add ? out[i] + from_half(row[i]) : from_half(row[i]);
      return;
    }
    case Dtype::bfloat16: {
      const uint16_t* row = (const uint16_t*)table.data + index * width;
      for (long i = 0; i < width; i++) out[i] = add ? out[i] + from_bfloat16(row[i]) : from_bfloat16(row[i]);
      return;
    }
  }
}

void embed(const EmbedArgs& args, long row0, long row1) {
  for (long row = row0; row < row1; row++) {
    float* out = args.out.row(row);
    take_row<false>(args.tokens, args.ids[row], out);
    if (args.position_table.present()) take_row<true>(args.position_table, args.positions[row] + args.position_offset, out);
    if (args.types.present()) take_row<true>(args.types, 0, out);
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

void norm(const NormArgs& args, long row0, long row1) {
  const long width = args.width;
  for (long row = row0; row < row1; row++) {
    const float* x = args.x.row(row);
    float* out = args.out.row(row);
    const float mean = row_sum(width, [&](long i, int n) { return load_some(x + i, n); }) / (float)width;
    const float variance = row_sum(width, [&](long i, int n) {
                             V d = keep_n(load_some(x + i, n) - broadcast(mean), n);
                             return d * d;
                           }) / (float)width;
    const V center = broadcast(mean), scale = broadcast(1.0f / __builtin_sqrtf(variance + args.eps));
    for (long i = 0; i < width; i += W) {
      const int n = (int)min_long(W, width - i);
      V y = (load_some(x + i, n) - center) * scale;
      if (args.weight) y = y * load_some(args.weight + i, n);
      if (args.bias) y = y + load_some(args.bias + i, n);
      store_some(out + i, y, n);
    }
  }
}

}  // namespace
}  // namespace longspan
