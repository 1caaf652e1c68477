// The register tile that all matrix products share: Rows x Vectors accumulators over up to kBlock terms.
#pragma once

#include "terms.h"

namespace longspan {
namespace {

// Element (row, k) of the left operand is at data[row * stride + k], or at data[k * stride + row].
template <class Word>
struct RowMajorOf {
  const Word* data;
  long stride;
  Word at(long row, long k) const { return data[row * stride + k]; }
  RowMajorOf from(long k) const { return {data + k, stride}; }
};
using RowMajor = RowMajorOf<float>;

struct ColumnMajor {
  const float* data;
  long stride;
  float at(long row, long k) const { return data[k * stride + row]; }
  ColumnMajor from(long k) const { return {data + k * stride, stride}; }
};

// The right operand as lines of words. Vector j of a line is at its own offset, so that one tile may span several panels
// of 16 columns, or half of one.
struct Lines {
  const float* data;
  long line;          // words from line to line
  long panel_stride;  // words from one group of 16 columns to the next
  const float* vector(int j) const { return data + (j * W / kLine) * panel_stride + (j * W) % kLine; }
  Lines from(long step) const { return {data + step * line, line, panel_stride}; }
};

// out[Rows][Vectors * W] = (accumulate ? out : 0) + left x right over so many lines, each element one ascending chain.
template <class Terms, int Rows, int Vectors, class Left>
__attribute__((noinline)) void tile(Left left, Lines right, long lines, float* out, bool accumulate) {
  typename Terms::Sum sum[Rows][Vectors];
#pragma GCC unroll 16
  for (int i = 0; i < Rows; i++)
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; j++) sum[i][j] = typename Terms::Sum{};
#pragma GCC unroll 1
  for (long step = 0; step < lines; step++) {
#pragma GCC unroll 2
    for (int word = 0; word < Terms::kWords; word++) {
      decltype(Terms::line(nullptr, 0)) b[Vectors];
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; j++) b[j] = Terms::line(right.vector(j) + step * right.line, word);
#pragma GCC unroll 16
      for (int i = 0; i < Rows; i++) {
        const auto a = Terms::spread(left.at(i, step * Terms::kWords + word));
#pragma GCC unroll 4
        for (int j = 0; j < Vectors; j++) sum[i][j] = Terms::add(sum[i][j], a, b[j]);
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < Rows; i++)
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; j++) {
      float* at = out + (i * Vectors + j) * W;
      store(at, (V)(accumulate ? (typename Terms::Sum)load(at) + sum[i][j] : sum[i][j]));
    }
}

// out = left x right over any number of lines: chains of Terms::kLines, their sums added in ascending order.
template <class Terms, int Rows, int Vectors, class Left>
inline void blocked_tile(Left left, Lines right, long lines, float* out) {
  tile<Terms, Rows, Vectors>(left, right, min_long(lines, Terms::kLines), out, false);
  for (long begin = Terms::kLines; begin < lines; begin += Terms::kLines)
    tile<Terms, Rows, Vectors>(left.from(begin * Terms::kWords), right.from(begin), min_long(lines - begin, Terms::kLines), out,
                               true);
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
