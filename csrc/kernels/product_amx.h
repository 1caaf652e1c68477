// The loops of product.h for AMX: 32 x 32 sums in four tiles, each one chain over all of k.
#pragma once

#include "amx.h"
#include "sums.h"
#include "tile.h"

namespace longspan {
namespace {

constexpr int kAmxSide = 32;  // rows and columns of a block

// 32 rows from `a` on, or 16, times 32 columns, or 16, of lines from `b` on, added to the sums in the tiles. `right` is the bytes
// from the first 16 columns to the next, and lines are `line` bytes apart.
template <bool bytes, bool both_rows, bool both_columns>
inline void add_block(const char* a, long stride, const char* b, long line, long right, long steps) {
  for (long step = 0; step < steps; step++, a += 64, b += 16 * line) {
    tile_load<4>(a, stride);
    tile_load<6>(b, line);
    tile_multiply<bytes, 0, 4, 6>();
    if constexpr (both_columns) {
      tile_load<7>(b + right, line);
      tile_multiply<bytes, 1, 4, 7>();
    }
    if constexpr (both_rows) {
      tile_load<5>(a + 16 * stride, stride);
      tile_multiply<bytes, 2, 5, 6>();
      if constexpr (both_columns) tile_multiply<bytes, 3, 5, 7>();
    }
  }
}

template <bool bytes, bool both_rows, bool both_columns>
inline void multiply_block(const char* a, long stride, const char* b, long line, long right, long steps) {
  tile_zero<0>();
  if constexpr (both_columns) tile_zero<1>();
  if constexpr (both_rows) tile_zero<2>();
  if constexpr (both_rows && both_columns) tile_zero<3>();
  add_block<bytes, both_rows, both_columns>(a, stride, b, line, right, steps);
}

template <bool both_rows, bool both_columns>
inline void load_block(const float* sums, long stride) {
  tile_load<0>(sums, stride);
  if constexpr (both_columns) tile_load<1>(sums + 16, stride);
  if constexpr (both_rows) tile_load<2>(sums + 4 * stride, stride);
  if constexpr (both_rows && both_columns) tile_load<3>(sums + 4 * stride + 16, stride);
}

template <bool both_rows, bool both_columns>
inline void store_block(float* sums, long stride) {
  tile_store<0>(sums, stride);
  if constexpr (both_columns) tile_store<1>(sums + 16, stride);
  if constexpr (both_rows) tile_store<2>(sums + 4 * stride, stride);
  if constexpr (both_rows && both_columns) tile_store<3>(sums + 4 * stride + 16, stride);
}

// What a block gains by a low-rank pair, [rows][kAmxSide], or null.
inline const float* block_gain(const Gain& gain, long row0, int rows, long column, long columns, float* out) {
  if (!gain.left.data) return nullptr;
  const long panel = gain.left.lines() * kLine;
  for (long j = 0; j < columns; j += W)
    for_row_tiles<8>(rows, [&]<int Rows>(long row) {
      alignas(64) float sums[Rows * W];
      const Lines right{gain.left.data + (column + j) / kLine * panel, kLine, panel};
      blocked_tile<Float32Terms, Rows, 1>(RowMajor{gain.ranks.row(row0 + row), gain.ranks.stride}, right, gain.left.k, sums);
      for (int i = 0; i < Rows; i++) store(out + (row + i) * kAmxSide + j, load(sums + i * W));
    });
  return out;
}

// A block's sums are finished while the tiles already work on the next.
template <Format format, class Finish>
inline void product_amx(const Left<format>& left, const Panels& weight, const Gain& gain, long row0, long row1, long column0,
                        long column1, const Finish& finish) {
  constexpr bool bytes = format == Format::int8;
  const TilesInUse tiles;
  alignas(64) float sums[2][kAmxSide * kAmxSide], gained[kAmxSide * kAmxSide];
  const long panel = weight.lines() * kLine * 4, steps = weight.lines() / Panels::kLineGroup, stride = left.stride * 4;
  Sums<format> waiting{};
  const auto finish_waiting = [&] {
    if (!waiting.rows) return;
    waiting.gain = block_gain(gain, waiting.row, waiting.rows, waiting.column, waiting.columns, gained);
    finish(waiting);
  };
  int turn = 0;
  const auto block = [&]<bool both_rows, bool both_columns>(const char* a, const char* b) {
    multiply_block<bytes, both_rows, both_columns>(a, stride, b, kLineBytes, panel, steps);
    finish_waiting();
    store_block<both_rows, both_columns>(sums[turn], kAmxSide * 4);
  };
  for (long column = column0; column < column1; column += kAmxSide) {
    const char* b = (const char*)weight.data + column / kLine * panel;
    const bool both_columns = column1 - column > 16;
    for (long row = row0; row < row1; row += kAmxSide, turn ^= 1) {
      const char* a = (const char*)left.data + (row - row0) * stride;
      const bool both_rows = row1 - row > 16;
      finish.expect(row, min_long(kAmxSide, row1 - row), column, min_long(kAmxSide, column1 - column));
      if (both_rows && both_columns) block.template operator()<true, true>(a, b);
      else if (both_columns) block.template operator()<false, true>(a, b);
      else if (both_rows) block.template operator()<true, false>(a, b);
      else block.template operator()<false, false>(a, b);
      waiting = {sums[turn], kAmxSide, (int)min_long(kAmxSide, row1 - row), row, column, min_long(kAmxSide, column1 - column),
                 &weight, left.scales_from(row - row0), nullptr};
    }
  }
  finish_waiting();
}

}  // namespace
}  // namespace longspan
