// The left operand of a product, in the words that the weight's format is multiplied with.
#pragma once

#include "narrow.h"
#include "tile.h"

namespace longspan {
namespace {

template <Format>
struct TermsFor {
  using Type = Float32Terms;
};
template <>
struct TermsFor<Format::bfloat16> {
  using Type = Bfloat16Terms;
};
template <>
struct TermsFor<Format::int8> {
  using Type = CodeTerms;
};
template <Format format>
using TermsOf = typename TermsFor<format>::Type;

// A code c of a row is worth (c + shift) * step.
struct RowScale {
  float step, shift;
};

template <class Word>
struct LeftOf {
  const Word* data;
  long stride;             // words from row to row
  const RowScale* scales;  // [rows], where words are codes

  RowMajorOf<Word> row(long index) const { return {data + index * stride, stride}; }
  const RowScale* scales_from(long index) const { return scales ? scales + index : nullptr; }
};
template <Format format>
using Left = LeftOf<typename TermsOf<format>::Word>;

// Rows in scratch: whole lines, an odd number of cache lines apart, so that they do not compete for the same sets.
template <Format format>
constexpr long left_words(long k) {
  const long words = round_up(Panels::lines_of(format, k) * TermsOf<format>::kWords, kLine);
  return words / kLine % 2 ? words : words + kLine;
}

constexpr long kLeftRows = 32;  // scratch has whole groups of rows: AMX reads them so

template <Format format>
constexpr long left_bytes_as(long rows, long k) {
  return round_up(rows, kLeftRows) * (left_words<format>(k) * 4 + (long)sizeof(RowScale));
}

// Also where nothing is copied: AMX may then read some rows beyond a matrix's last, and finds this behind it.
long left_bytes(Format format, bool bf16, long rows, long k) {
  switch (format) {
    case Format::float32: return bf16 ? left_bytes_as<Format::float32>(rows, k) : 0;
    case Format::bfloat16: return left_bytes_as<Format::bfloat16>(rows, k);
    case Format::int8: return left_bytes_as<Format::int8>(rows, k);
  }
  return 0;
}

inline void store_as(float* p, V v, int n) { store_some(p, v, n); }
inline void store_as(uint16_t* p, V v, int n) { store_bf16(p, v, n); }

// `x`, one row of k columns, as float32 or bfloat16, with zeros up to `padded`.
template <class Element>
inline void copy_row(Matrix x, long k, long padded, Element* out) {
  long i = 0;
  for (; i + W <= k; i += W) store_as(out + i, load_from(x, 0, i, W), W);
  if (i < k) store_as(out + i, load_from(x, 0, i, (int)(k - i)), (int)(k - i));
  if (k < padded) __builtin_memset(out + k, 0, (padded - k) * sizeof(Element));
}

// The range of a row, and NaN or zero.
struct RowRange {
  V low = zero(), high = zero(), poison = zero();

  void add(V v) {
    low = lesser_of(low, v);
    high = greater_of(high, v);
    poison = fma(v, zero(), poison);
  }
  void add(const RowRange& other) {
    low = lesser_of(low, other.low);
    high = greater_of(high, other.high);
    poison += other.poison;
  }
};

// A row of k columns as codes from 0 to 255 between its least and its greatest component, zero among them and exact. Columns
// are multiplied by `smooth` first. A row with a NaN or an infinity is worth NaN.
template <bool smoothed, bool bf16>
class CodedRow {
 public:
  CodedRow(const Matrix& x, const float* smooth, long k) : x_(x), smooth_(smooth), k_(k) {
    const RowRange range = range_of_all();
    const float least = min_lanes(range.low), most = max_lanes(range.high);
    step_ = greatest(most * kStep - least * kStep, 1e-30f);
    inverse_ = 1.0f / step_;
    offset_ = (kNudge - least * inverse_) + kMagic;
    poison_ = sum_lanes(range.poison);
  }

  RowScale scale() const { return {step_ + poison_, kMagic - offset_}; }

  // Zeros up to `padded`. The row after the next is fetched meanwhile.
  void store(long padded, uint8_t* out) const {
    const auto code = [&](V v) { return (VI)fma(v, broadcast(inverse_), broadcast(offset_)); };
    long i = 0;
    for (; i + W <= k_; i += W) {
      __builtin_prefetch(x_.from(2, i).data);
      store_some_bytes(out + i, code(take(i, W)), W);
    }
    if (i < k_) store_some_bytes(out + i, code(take(i, (int)(k_ - i))), (int)(k_ - i));
    if (k_ < padded) __builtin_memset(out + k_, 0, padded - k_);
  }

 private:
  // No code is beyond 0 or 255, however its zero is rounded: zero is moved up by more than the terms' rounding errors, and
  // the steps are longer by more than that.
  static constexpr float kNudge = 0x1p-10f, kStep = (1 + 0x1p-17f) / 255;

  Matrix x_;
  const float* smooth_;
  long k_;
  float step_, inverse_, offset_, poison_;

  V take(long i, int n) const {
    const V v = bf16 ? load_bf16(x_.bf16_row(0) + i, n) : load_some(x_.data + i, n);
    return smoothed ? v * load(smooth_ + i) : v;
  }

  RowRange range_of_all() const {
    RowRange range, ranges[3];  // chains enough to hide their latency
    long i = 0;
    for (; i + 4 * W <= k_; i += 4 * W) {
      range.add(take(i, W));
#pragma GCC unroll 3
      for (int j = 0; j < 3; j++) ranges[j].add(take(i + (j + 1) * W, W));
    }
    for (; i + W <= k_; i += W) range.add(take(i, W));
    if (i < k_) range.add(take(i, (int)(k_ - i)));
#pragma GCC unroll 3
    for (int j = 0; j < 3; j++) range.add(ranges[j]);
    return range;
  }
};

// The left words of CodeTerms, from four codes each; `codes` may be the second half of `out`.
inline void widen_codes(const uint8_t* codes, long count, uint32_t* out) {
  for (long i = 0; i < count; i += 4 * W) {
    const VI words = (VI)load((const float*)(codes + i));
    const V even = (V)(words & 0x00ff00ff), odd = (V)(words >> 8 & 0x00ff00ff);
    store_in_turn((float*)out + i / 2, even, odd);
  }
}

// Rows [row0, row1) as codes, `stride` bytes apart. The next row's range is found before this row's codes are stored, so that
// its latency is hidden.
template <bool smoothed, bool bf16>
inline void quantise_rows(const Matrix& x, const float* smooth, long k, long padded, long row0, long row1, uint8_t* out,
                          long stride, RowScale* scales) {
  using Row = CodedRow<smoothed, bf16>;
  const auto store = [&](const Row& row) {
    *scales++ = row.scale();
    if constexpr (CodeTerms::kWords == 1) {
      row.store(padded, out);
    } else {
      row.store(padded, out + padded);
      widen_codes(out + padded, padded, (uint32_t*)out);
    }
    out += stride;
  };
  if (row0 == row1) return;
  Row row(x.from(row0), smooth, k);
  for (long index = row0 + 1; index < row1; index++) {
    const Row next(x.from(index), smooth, k);
    store(row);
    row = next;
  }
  store(row);
}

template <Format format>
inline Left<format> prepare_left(const Matrix& x, long row0, long row1, const Panels& weight, void* scratch) {
  const long k = weight.k;
  using Word = typename TermsOf<format>::Word;
  const long stride = left_words<format>(k);
  const long padded = Panels::lines_of(format, k) * Panels::terms(format);
  Word* words = (Word*)scratch;
  if constexpr (format == Format::int8) {
    RowScale* scales = (RowScale*)(words + round_up(row1 - row0, kLeftRows) * stride);
    const auto quantise = x.bf16 ? weight.smooth ? quantise_rows<true, true> : quantise_rows<false, true>
                                 : weight.smooth ? quantise_rows<true, false> : quantise_rows<false, false>;
    quantise(x, weight.smooth, k, padded, row0, row1, (uint8_t*)words, stride * (long)sizeof(Word), scales);
    return {words, stride, scales};
  } else {
    constexpr bool pairs = format == Format::bfloat16 && kDot2;
    if (x.bf16 == pairs && k == padded) return {(const Word*)x.from(row0).data, pairs ? x.stride / 2 : x.stride, nullptr};
    for (long row = row0; row < row1; row++) {
      Word* out = words + (row - row0) * stride;
      if constexpr (pairs) copy_row(x.from(row), k, padded, (uint16_t*)out);
      else copy_row(x.from(row), k, padded, out);
    }
    return {words, stride, nullptr};
  }
}

}  // namespace
}  // namespace longspan
