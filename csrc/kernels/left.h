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
  using Type = Int8Terms;
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

// Rounds `x`, one row of k columns, to codes from 0 to 255 between its least and its greatest component, zero among them
// and exact. A row with a NaN or an infinity is worth NaN. Zeros up to `padded`. Columns are multiplied by `smooth` first.
template <bool smoothed, bool bf16>
inline RowScale quantise_row(Matrix x, const float* smooth, long k, long padded, uint8_t* out) {
  const auto take = [&](long i, int n) {
    const V v = bf16 ? load_bf16(x.bf16_row(0) + i, n) : load_some(x.data + i, n);
    return smoothed ? v * load(smooth + i) : v;
  };
  RowRange range, ranges[3];  // chains enough to hide their latency
  long i = 0;
  for (; i + 4 * W <= k; i += 4 * W) {
    range.add(take(i, W));
#pragma GCC unroll 3
    for (int j = 0; j < 3; j++) ranges[j].add(take(i + (j + 1) * W, W));
  }
  for (; i + W <= k; i += W) range.add(take(i, W));
  if (i < k) range.add(take(i, (int)(k - i)));
#pragma GCC unroll 3
  for (int j = 0; j < 3; j++) range.add(ranges[j]);
  const float least = min_lanes(range.low), most = max_lanes(range.high);
  const float step = greatest(most * (1 / 255.0f) - least * (1 / 255.0f), 1e-30f), inverse = 1.0f / step;
  const float offset = -least * inverse + kMagic;
  const auto code = [&](V v) {
    return (VI)at_most(at_least(fma(v, broadcast(inverse), broadcast(offset)), kMagic), kMagic + 255.0f);
  };
  for (i = 0; i + W <= k; i += W) store_some_bytes(out + i, code(take(i, W)), W);
  if (i < k) store_some_bytes(out + i, code(take(i, (int)(k - i))), (int)(k - i));
  if (k < padded) __builtin_memset(out + k, 0, padded - k);
  return {step + sum_lanes(range.poison), kMagic - offset};
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
    const auto quantise = x.bf16 ? weight.smooth ? quantise_row<true, true> : quantise_row<false, true>
                                 : weight.smooth ? quantise_row<true, false> : quantise_row<false, false>;
    for (long row = row0; row < row1; row++)
      scales[row - row0] = quantise(x.from(row), weight.smooth, k, padded, (uint8_t*)(words + (row - row0) * stride));
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
