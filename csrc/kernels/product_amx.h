// The loops of product.h for AMX: 32 x 32 sums in four tiles, each one chain over all of k.
//
// Tiles that come from the second-level cache halve the rate of the multiplications. So blocks go over k in slices: what a
// slice takes of 32 columns, and of 32 rows for both halves of a group of columns, is read again from the first-level cache;
// sums wait in scratch meanwhile. A group of 64 columns is two cache lines of a row at least, even of bfloat16: where
// single lines of many rows are written to memory, that takes ten times as long as pairs of them.
#pragma once

#include "amx.h"
#include "sums.h"
#include "tile.h"

namespace longspan {
namespace {

constexpr int kAmxSide = 32;            // rows and columns of a block
constexpr long kAmxColumns = 64;        // of a group of blocks
constexpr long kAmxRows = 96;           // whose sums wait
constexpr long kAmxSteps = 8;           // of a slice, at most: 64 bytes of a row each. 6 are as fast, 4 and 12 are slower
constexpr long kAmxAhead = 256 * 1024;  // bytes of a group that is fetched ahead: larger ones drive the rows out

// Lines that are fetched into the second-level cache, some at each step of the tiles.
struct Ahead {
  const char *at, *end;

  void fetch() {
    constexpr int kLines = 6;  // more than that at a time delay the tiles
    if (at >= end) return;
#pragma GCC unroll 6
    for (int i = 0; i < kLines; i++) __builtin_prefetch(at + i * kLineBytes, 0, 2);
    at += kLines * kLineBytes;
  }
};
struct NothingAhead {
  void fetch() {}
};

// 32 rows from `a` on, or 16, times 32 columns, or 16, of lines from `b` on, added to the sums in the tiles. `right` is the bytes
// from the first 16 columns to the next, and lines are `line` bytes apart. Each step fetches what lies `ahead`.
template <bool bytes, bool both_rows, bool both_columns, class Fetch>
inline void add_block(const char* a, long stride, const char* b, long line, long right, long steps, Fetch&& ahead) {
  for (long step = 0; step < steps; step++, a += 64, b += 16 * line) {
    ahead.fetch();
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

template <bool both_rows, bool both_columns>
inline void zero_block() {
  tile_zero<0>();
  if constexpr (both_columns) tile_zero<1>();
  if constexpr (both_rows) tile_zero<2>();
  if constexpr (both_rows && both_columns) tile_zero<3>();
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

// What rows gain by a low-rank pair, [rows][kAmxColumns], or null.
inline const float* block_gain(const Gain& gain, long row0, int rows, long column, long columns, float* out) {
  if (!gain.left.data) return nullptr;
  const long panel = gain.left.lines() * kLine;
  for (long j = 0; j < columns; j += W)
    for_row_tiles<8>(rows, [&]<int Rows>(long row) {
      alignas(64) float sums[Rows * W];
      const Lines right{gain.left.data + (column + j) / kLine * panel, kLine, panel};
      blocked_tile<Float32Terms, Rows, 1>(RowMajor{gain.ranks.row(row0 + row), gain.ranks.stride}, right, gain.left.k, sums);
      for (int i = 0; i < Rows; i++) store(out + (row + i) * kAmxColumns + j, load(sums + i * W));
    });
  return out;
}

// A weight's columns from `column` on, kAmxColumns at most and none from `end` on, and the lines of the group after them.
struct AmxGroup {
  const char* data;
  long panel;  // bytes
  long columns;
  Ahead next;
};

inline AmxGroup amx_group(const Panels& weight, long column, long end) {
  const long panel = weight.lines() * kLineBytes, columns = min_long(kAmxColumns, end - column);
  const char* const data = (const char*)weight.data + column / kLine * panel;
  const char* const next = data + divide_up(columns, kLine) * panel;
  const long bytes = divide_up(min_long(kAmxColumns, end - column - columns), kLine) * panel;
  return {data, panel, columns, {next, next + (bytes <= kAmxAhead ? bytes : 0)}};
}

// Steps [begin, end) of all blocks of rows [row0, row0 + rows), added to sums[rows][kAmxColumns].
template <bool bytes>
inline void add_slice(const char* a, long stride, long rows, AmxGroup& group, long begin, long end, float* sums) {
  const auto block = [&]<bool both_rows, bool both_columns>(long row, long column) {
    constexpr long kRow = kAmxColumns * 4;
    float* const waiting = sums + row * kAmxColumns + column;
    if (begin) load_block<both_rows, both_columns>(waiting, kRow);
    else zero_block<both_rows, both_columns>();
    add_block<bytes, both_rows, both_columns>(a + row * stride + begin * 64, stride,
                                              group.data + column / kLine * group.panel + begin * 16 * kLineBytes, kLineBytes,
                                              group.panel, end - begin, group.next);
    store_block<both_rows, both_columns>(waiting, kRow);
  };
  for (long row = 0; row < rows; row += kAmxSide)
    for (long column = 0; column < group.columns; column += kAmxSide) {
      const bool both_rows = rows - row > 16, both_columns = group.columns - column > 16;
      if (both_rows && both_columns) block.template operator()<true, true>(row, column);
      else if (both_columns) block.template operator()<false, true>(row, column);
      else if (both_rows) block.template operator()<true, false>(row, column);
      else block.template operator()<false, false>(row, column);
    }
}

template <Format format, class Finish>
inline void product_amx(const Left<format>& left, const Panels& weight, const Gain& gain, long row0, long row1, long column0,
                        long column1, const Finish& finish) {
  constexpr bool bytes = format == Format::int8;
  if (row0 == row1) return;
  const TilesInUse tiles;
  alignas(64) float sums[kAmxRows * kAmxColumns], gained[kAmxSide * kAmxColumns];
  const long stride = left.stride * 4, all = row1 - row0;
  const long chunk = round_up(divide_up(all, divide_up(all, kAmxRows)), kAmxSide);
  const long steps = weight.lines() / Panels::kLineGroup;
  const long slices = divide_up(steps, kAmxSteps), slice = divide_up(steps, slices);
  for (long column = column0; column < column1; column += kAmxColumns) {
    AmxGroup group = amx_group(weight, column, column1);
    for (long first = 0; first < all; first += chunk) {
      const char* const a = (const char*)left.data + first * stride;
      const long rows = min_long(chunk, all - first);
      for (long begin = 0; begin + slice < steps; begin += slice)
        add_slice<bytes>(a, stride, rows, group, begin, begin + slice, sums);
      for (long row = 0; row < rows; row += kAmxSide) {
        const long index = row0 + first + row;
        const int count = (int)min_long(kAmxSide, rows - row);
        float* const found = sums + row * kAmxColumns;
        finish.expect(index, count, column, group.columns);
        add_slice<bytes>(a + row * stride, stride, count, group, (slices - 1) * slice, steps, found);
        finish(Sums<format>{found, kAmxColumns, count, index, column, group.columns, &weight, left.scales_from(first + row),
                            block_gain(gain, index, count, column, group.columns, gained)});
      }
    }
  }
}

}  // namespace
}  // namespace longspan
