// The register tile that all matrix products share: Rows x Vectors accumulators over up to kBlock terms.
#pragma once

#include "vector.h"

namespace longspan {
namespace {

// Element (row, k) of the left operand is at data[row * RowStride + k * k_stride]; one of the two strides is 1.
struct RowMajor {
  const float* data;
  long stride;
  float at(long row, long k) const { return data[row * stride + k]; }
  RowMajor from(long k) const { return {data + k, stride}; }
};

struct ColumnMajor {
  const float* data;
  long stride;
  float at(long row, long k) const { return data[k * stride + row]; }
  ColumnMajor from(long k) const { return {data + k * stride, stride}; }
};

// The right operand as lines of `line` floats along k. Vector j of a line is at its own offset, so that one tile may
// span several panels of 16 columns, or half of one.
struct Lines {
  const float* data;
  long line;          // floats from k to k + 1
  long panel_stride;  // floats from one group of 16 columns to the next
  const float* vector(int j) const { return data + (j * W / kLine) * panel_stride + (j * W) % kLine; }
  Lines from(long k) const { return {data + k * line, line, panel_stride}; }
};

// out[Rows][Vectors * W] = (accumulate ? out : 0) + left x right over k terms, each element one ascending chain.
template <int Rows, int Vectors, class Left>
__attribute__((noinline)) void tile(Left left, Lines right, long k, float* out, bool accumulate) {
  V sum[Rows][Vectors];
#pragma GCC unroll 16
  for (int i = 0; i < Rows; i++)
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; j++) sum[i][j] = zero();
#pragma GCC unroll 1
  for (long step = 0; step < k; step++) {
    V b[Vectors];
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; j++) b[j] = load(right.vector(j) + step * right.line);
#pragma GCC unroll 16
    for (int i = 0; i < Rows; i++) {
      V a = broadcast(left.at(i, step));
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; j++) sum[i][j] = fma(a, b[j], sum[i][j]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < Rows; i++)
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; j++) {
      float* at = out + (i * Vectors + j) * W;
      store(at, accumulate ? load(at) + sum[i][j] : sum[i][j]);
    }
}

// Adds the terms from `begin` to k to `out`: blocks of kBlock terms, their sums added in ascending order.
template <int Rows, int Vectors, class Left>
inline void add_blocks(Left left, Lines right, long k, long begin, float* out) {
  for (; begin < k; begin += kBlock)
    tile<Rows, Vectors>(left.from(begin), right.from(begin), min_long(k - begin, kBlock), out, true);
}

// out = left x right over any k, in such blocks.
template <int Rows, int Vectors, class Left>
inline void blocked_tile(Left left, Lines right, long k, float* out) {
  tile<Rows, Vectors>(left, right, min_long(k, kBlock), out, false);
  add_blocks<Rows, Vectors>(left, right, k, kBlock, out);
}

// Calls body.template operator()<Rows>(row) over [0, rows) in steps of `Most`, then with what is left.
template <int Most, class Body>
inline void for_row_tiles(long rows, Body body) {
  long row = 0;
  for (; row + Most <= rows; row += Most) body.template operator()<Most>(row);
  if constexpr (Most > 8)
    if (row + 8 <= rows) { body.template operator()<8>(row); row += 8; }
  if constexpr (Most > 4)
    if (row + 4 <= rows) { body.template operator()<4>(row); row += 4; }
  if constexpr (Most > 2)
    if (row + 2 <= rows) { body.template operator()<2>(row); row += 2; }
  if (row < rows) body.template operator()<1>(row);
}

}  // namespace
}  // namespace longspan
