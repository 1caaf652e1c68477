// The loops around the register tile: a block of rows times a range of a weight's columns.
#pragma once

#include "sums.h"
#include "tile.h"
#ifdef LONGSPAN_AMX
#include "product_amx.h"
#endif

namespace longspan {
namespace {

constexpr int kTileColumns = kTileVectors * W;

const char* how(Format format) {
#ifdef LONGSPAN_AMX
  if (format != Format::float32) return "AMX tiles";
#endif
  if (format == Format::bfloat16 && !kDot2) return "register tile, widened to float32";
  if (format == Format::int8 && !kDot4) return "register tile, widened to 16 bits";
  return "register tile";
}

// A weight's columns from `column` on.
inline Lines lines_from(const Panels& weight, long column) {
  const long panel = weight.lines() * kLine;
  return {weight.data + column / kLine * panel + column % kLine, kLine, panel};
}

// What a tile gains by a low-rank pair: [Rows][Vectors * W], or null.
template <int Rows, int Vectors>
inline const float* gain_of(const Gain& gain, long row, long column, float* out) {
  if (!gain.left.data) return nullptr;
  blocked_tile<Float32Terms, Rows, Vectors>(RowMajor{gain.ranks.row(row), gain.ranks.stride}, lines_from(gain.left, column),
                                            gain.left.k, out);
  return out;
}

// A group of columns for all rows. The first row tiles fetch `next`, the group after it, a part each.
template <Format format, int Vectors, class Finish>
inline void column_group(const Left<format>& left, const Panels& weight, const Gain& gain, long row0, long row1, long column,
                         long columns, const float* next, const Finish& finish) {
  constexpr int kParts = kLinesAtOnce * Vectors;
  alignas(64) float sums[kTileRows * Vectors * W], gained[kTileRows * Vectors * W];
  Lines right = lines_from(weight, column);
  int part = 0;
  for_row_tiles<kTileRows>(row1 - row0, [&]<int Rows>(long row) {
    right.next = next && part < kParts ? next + part++ * (weight.lines() / kLinesAtOnce) * kLine : nullptr;
    finish.expect(row0 + row, Rows, column, columns);
    blocked_tile<TermsOf<format>, Rows, Vectors>(left.row(row), right, weight.lines(), sums);
    finish(Sums<format>{sums, Vectors * W, Rows, row0 + row, column, columns, &weight, left.scales_from(row),
                        gain_of<Rows, Vectors>(gain, row0 + row, column, gained)});
  });
}

// Calls finish(Sums) for every register tile of the product, and finish.expect(row, rows, column, columns) before. Rows run
// inside columns: a group of columns stays in the near cache while rows stream by. A tile never reaches beyond the last panel.
template <Format format, class Finish>
inline void product_as(const Matrix& x, const Panels& weight, const Gain& gain, long row0, long row1, long column0,
                       long column1, void* scratch, const Finish& finish) {
  const Left<format> left = prepare_left<format>(x, row0, row1, weight, scratch);
#ifdef LONGSPAN_AMX
  if constexpr (format != Format::float32)
    return product_amx<format>(left, weight, gain, row0, row1, column0, column1, finish);
#endif
  const auto next = [&](long column) { return column < column1 ? lines_from(weight, column).data : nullptr; };
  long column = column0;
  for (; column + kTileColumns <= column1; column += kTileColumns)
    column_group<format, kTileVectors>(left, weight, gain, row0, row1, column, kTileColumns, next(column + kTileColumns), finish);
  for (; column < column1; column += W)
    column_group<format, 1>(left, weight, gain, row0, row1, column, min_long(W, column1 - column), next(column + W), finish);
}

template <class Finish>
inline void product(const Matrix& x, const Panels& weight, const Gain& gain, long row0, long row1, long column0,
                    long column1, void* scratch, const Finish& finish) {
  switch (weight.format) {
    case Format::float32:
      return product_as<Format::float32>(x, weight, gain, row0, row1, column0, column1, scratch, finish);
    case Format::bfloat16:
      return product_as<Format::bfloat16>(x, weight, gain, row0, row1, column0, column1, scratch, finish);
    case Format::int8: return product_as<Format::int8>(x, weight, gain, row0, row1, column0, column1, scratch, finish);
  }
}

}  // namespace
}  // namespace longspan
