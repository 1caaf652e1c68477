// The register tile that all matrix products share: Rows x Vectors accumulators over up to kBlock terms.
#pragma once

#include "terms.h"

namespace longspan {
namespace {

constexpr int kLinesAtOnce = 2;  // more, and the compiler moves sums from one register to another

// Element (row, k) of the left operand is at data[row * stride + k], or at data[k * stride + row].
template <class Word>
struct RowMajorOf {
  const Word* data;
  long stride;
  RowMajorOf from(long k) const { return {data + k, stride}; }
};
using RowMajor = RowMajorOf<float>;

template <class Word>
struct ColumnMajorOf {
  const Word* data;
  long stride;
  ColumnMajorOf from(long k) const { return {data + k * stride, stride}; }
};
using ColumnMajor = ColumnMajorOf<float>;

// The words of a left operand's rows, from one k to the next.
template <class Left, int Rows>
class Walk;

// Four rows share a pointer: an address holds the sum of one and a multiple of the stride. The compiler would rather keep
// an address for every row, more than there are registers.
template <class Word, int Rows>
class Walk<RowMajorOf<Word>, Rows> {
 public:
  explicit Walk(const RowMajorOf<Word>& left) : stride_(left.stride * (long)sizeof(Word)), three_(3 * stride_) {
#pragma GCC unroll 4
    for (int i = 0; i < kPointers; i++) rows_[i] = (const char*)left.data + 4 * i * stride_;
  }
  Word at(int row, int ahead) const {
    const long within = row % 4 == 3 ? three_ : row % 4 * stride_;
    return *(const Word*)(rows_[row / 4] + within + ahead * (long)sizeof(Word));
  }
  void forget_addresses() { asm volatile("" : "+r"(stride_), "+r"(three_)); }
  void advance(int words) {
#pragma GCC unroll 4
    for (int i = 0; i < kPointers; i++) rows_[i] += words * (long)sizeof(Word);
  }

 private:
  static constexpr int kPointers = (Rows + 3) / 4;
  const char* rows_[kPointers];
  long stride_, three_;  // bytes
};

template <class Word, int Rows>
class Walk<ColumnMajorOf<Word>, Rows> {
 public:
  explicit Walk(const ColumnMajorOf<Word>& left) : left_(left) {}
  Word at(int row, int ahead) const { return left_.data[ahead * left_.stride + row]; }
  void forget_addresses() {}
  void advance(int words) { left_ = left_.from(words); }

 private:
  ColumnMajorOf<Word> left_;
};

// The right operand as lines of words. Vector j of a line is at its own offset, so that one tile may span several panels
// of 16 columns, or half of one.
struct Lines {
  const float* data;
  long line;          // words from line to line
  long panel_stride;  // words from one group of 16 columns to the next
  const float* next = nullptr;  // cache lines to be fetched meanwhile, one for each kLinesAtOnce of these; or null

  const float* vector(int j) const { return data + (j * W / kLine) * panel_stride + (j * W) % kLine; }
  Lines from(long step) const {
    return {data + step * line, line, panel_stride, next ? next + step / kLinesAtOnce * kLine : nullptr};
  }
};

// out[Rows][Vectors * W] = (accumulate ? out : 0) + left x right over so many lines, each element one ascending chain.
// Operands are passed by reference: copies would be read by whole vectors, and wait for every store before them.
template <class Terms, int Rows, int Vectors, class Left>
__attribute__((noinline)) void tile(const Left& left, const Lines& start, long lines, float* out, bool accumulate) {
  Lines right = start;
  typename Terms::Sum sum[Rows][Vectors];
#pragma GCC unroll 16
  for (int i = 0; i < Rows; i++)
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; j++) sum[i][j] = typename Terms::Sum{};
  Walk<Left, Rows> walk(left);
  const auto add_line = [&](int ahead) __attribute__((always_inline)) {
#pragma GCC unroll 2
    for (int word = 0; word < Terms::kWords; word++) {
      walk.forget_addresses();
      decltype(Terms::line(nullptr, 0)) b[Vectors];
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; j++) b[j] = Terms::line(right.vector(j) + ahead * right.line, word);
#pragma GCC unroll 16
      for (int i = 0; i < Rows; i++) {
        const auto a = Terms::spread(walk.at(i, ahead * Terms::kWords + word));
#pragma GCC unroll 4
        for (int j = 0; j < Vectors; j++) sum[i][j] = Terms::add(sum[i][j], a, b[j]);
      }
    }
  };
  const auto advance = [&](int count) __attribute__((always_inline)) {
    walk.advance(count * Terms::kWords);
    right = right.from(count);
  };
  if (!right.next) right.next = right.data;
  long line = 0;
#pragma GCC unroll 1
  for (; line + kLinesAtOnce <= lines; line += kLinesAtOnce) {
    __builtin_prefetch(right.next, 0, 2);
#pragma GCC unroll 2
    for (int ahead = 0; ahead < kLinesAtOnce; ahead++) add_line(ahead);
    advance(kLinesAtOnce);
  }
  for (; line < lines; line++) {
    add_line(0);
    advance(1);
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
inline void blocked_tile(const Left& left, const Lines& right, long lines, float* out) {
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
