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
#ifdef LONGSPAN_AMX
constexpr long kBestColumns = kAmxColumns;
#else
constexpr long kBestColumns = kTileColumns < kLine ? kLine : kTileColumns;
#endif

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

// A product's group of columns.
struct Group {
  const Panels& weight;
  long column, columns;
  bool last;

  Lines lines() const { return lines_from(weight, column); }
  // The group after it, or once more the last.
  template <int Vectors>
  Lines next() const {
    return last ? lines() : lines_from(weight, column + Vectors * W);
  }
};

// What row tiles fetch while they work: so many lines of every panel from `start` on, each of the first tiles a part.
template <int Vectors>
class Fetched {
 public:
  Fetched(const Lines& start, long lines) : start_(start), part_lines_(lines / kLinesAtOnce) {}
  const float* part() {
    if (part_ == kParts) return nullptr;
    const int part = part_++;
    return start_.data + part / kLinesAtOnce * start_.panel_stride + part % kLinesAtOnce * part_lines_ * kLine;
  }

 private:
  static constexpr int kParts = kLinesAtOnce * (int)divide_up(Vectors * W, kLine);
  Lines start_;
  long part_lines_;
  int part_ = 0;
};

// Finishes a tile whose sums, [Rows][Vectors * W], are there; `row` counts from the left operand's first, which is `row0`.
template <Format format, int Rows, int Vectors, class Finish>
inline void finish_tile(const float* sums, const Left<format>& left, const Group& group, const Gain& gain, long row0, long row,
                        const Finish& finish) {
  alignas(64) float gained[Rows * Vectors * W];
  finish(Sums<format>{sums, Vectors * W, Rows, row0 + row, group.column, group.columns, &group.weight, left.scales_from(row),
                      gain_of<Rows, Vectors>(gain, row0 + row, group.column, gained)});
}

template <Format format, int Vectors, class Finish>
inline void column_group(const Left<format>& left, const Group& group, const Gain& gain, long row0, long row1, const Finish& finish) {
  alignas(64) float sums[kTileRows * Vectors * W];
  Lines right = group.lines();
  Fetched<Vectors> fetched(group.next<Vectors>(), group.weight.lines());
  for_row_tiles<kTileRows>(row1 - row0, [&]<int Rows>(long row) {
    right.next = fetched.part();
    finish.expect(row0 + row, Rows, group.column, group.columns);
    blocked_tile<TermsOf<format>, Rows, Vectors>(left.row(row), right, group.weight.lines(), sums);
    finish_tile<format, Rows, Vectors>(sums, left, group, gain, row0, row, finish);
  });
}

constexpr long kFirstCache = 24 * 1024;  // bytes of a weight that the first-level cache keeps beside rows and sums

// The same where the group is larger than the first-level cache: what one chain takes of it stays there for 96 rows.
template <Format format, int Vectors, class Finish>
inline void column_group_in_parts(const Left<format>& left, const Group& group, const Gain& gain, long row0, long row1,
                                  const Finish& finish) {
  using Terms = TermsOf<format>;
  constexpr long kRows = 96, kRow = Vectors * W;
  alignas(64) float sums[kRows * kRow];
  const long lines = group.weight.lines(), all = row1 - row0;
  for (long first = 0; first < all; first += kRows) {
    const long rows = min_long(kRows, all - first);
    for (long begin = 0; begin < lines; begin += Terms::kLines) {
      const long count = min_long(lines - begin, Terms::kLines);
      const bool ends = begin + count == lines, again = first + kRows < all;
      Lines right = group.lines().from(begin);
      const long next_lines = min_long(ends ? lines : lines - begin - count, Terms::kLines);
      Fetched<Vectors> fetched(!ends ? right.from(count) : again ? group.lines() : group.next<Vectors>(), next_lines);
      for_row_tiles<kTileRows>(rows, [&]<int Rows>(long row) {
        right.next = fetched.part();
        if (ends) finish.expect(row0 + first + row, Rows, group.column, group.columns);
        tile<Terms, Rows, Vectors>(left.row(first + row).from(begin * Terms::kWords), right, count, sums + row * kRow, begin > 0);
      });
    }
    for_row_tiles<kTileRows>(rows, [&]<int Rows>(long row) {
      finish_tile<format, Rows, Vectors>(sums + row * kRow, left, group, gain, row0, first + row, finish);
    });
  }
}

// Calls finish(Sums) for every register tile of the product, and finish.expect(row, rows, column, columns) before. Rows run
// inside columns: a group of columns stays in the first or second cache while rows stream by. A tile never reaches beyond the
// last panel.
template <Format format, class Finish>
inline void product_as(const Matrix& x, const Panels& weight, const Gain& gain, long row0, long row1, long column0,
                       long column1, void* scratch, const Finish& finish) {
  const Left<format> left = prepare_left<format>(x, row0, row1, weight, scratch);
#ifdef LONGSPAN_AMX
  if constexpr (format != Format::float32)
    return product_amx<format>(left, weight, gain, row0, row1, column0, column1, finish);
#endif
  const auto multiply = [&]<int Vectors>(long column, long columns) {
    const Group group{weight, column, columns, column + Vectors * W >= column1};
    constexpr long line_bytes = round_up(Vectors * W, kLine) * 4;
    if constexpr (Vectors == kTileVectors && TermsOf<format>::kLines * line_bytes <= kFirstCache)
      if (weight.lines() * line_bytes > kFirstCache)
        return column_group_in_parts<format, Vectors>(left, group, gain, row0, row1, finish);
    column_group<format, Vectors>(left, group, gain, row0, row1, finish);
  };
  long column = column0;
  for (; column + kTileColumns <= column1; column += kTileColumns)
    multiply.template operator()<kTileVectors>(column, kTileColumns);
  for (; column < column1; column += W) multiply.template operator()<1>(column, min_long(W, column1 - column));
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
