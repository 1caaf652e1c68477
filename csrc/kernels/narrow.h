// Rows of 16-bit floats as vectors of float32, and matrices of either.
#pragma once

#include "table.h"
#include "vector.h"

namespace longspan {
namespace {

typedef uint32_t VU __attribute__((vector_size(W * 4)));

// The bits of bfloat16 in the low half of each lane, rounded to the nearest, ties to even; a NaN stays one.
inline VI narrow(V v) {
  const VU bits = (VU)v;
  const VU rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return (VI)(v == v ? rounded : bits >> 16 | 0x40);
}

// The first n of W words, each in the low half of a lane; the others are zero.
inline VI load_some_words(const uint16_t* p, int n) {
  if (n == W) return load_words(p);
  uint16_t words[W] = {};
  __builtin_memcpy(words, p, n * sizeof(uint16_t));
  return load_words(words);
}

inline V load_bf16(const uint16_t* p, int n) { return (V)(load_some_words(p, n) << 16); }

// 2 W numbers: those at even places, and those at odd ones.
struct Bf16Pairs {
  V even, odd;
  explicit Bf16Pairs(const uint16_t* p) {
    const VI pairs = (VI)load((const float*)p);
    even = (V)(pairs << 16);
    odd = (V)(pairs & (int)0xffff0000);
  }
};

// W words of float16, each in the low half of a lane: what from_half does.
inline V widen_half(VI words) {
  const VI rest = words & 0x7fff, exponent = words & 0x7c00;
  const V tiny = __builtin_convertvector(rest, V) * broadcast(0x1p-24f);  // zero and subnormals
  const VI wide = (rest << 13) + (112 << 23) + ((exponent == 0x7c00) & 112 << 23);  // infinities and NaN move twice as far
  return (V)((exponent == 0 ? (VI)tiny : wide) | (words & 0x8000) << 16);
}

// Up to W numbers of a checkpoint's array.
template <Dtype dtype>
inline V load_elements(const void* data, long index, int n) {
  if constexpr (dtype == Dtype::float16) return widen_half(load_some_words((const uint16_t*)data + index, n));
  if constexpr (dtype == Dtype::bfloat16) return load_bf16((const uint16_t*)data + index, n);
  return load_some((const float*)data + index, n);
}

inline void store_bf16(uint16_t* p, V v, int n) {
  uint16_t words[W];
  uint16_t* at = n == W ? p : words;
#ifdef LONGSPAN_DOT2
  _mm256_storeu_si256((__m256i*)at, (__m256i)_mm512_cvtneps_pbh((__m512)v));
#else
  store_words(at, narrow(v));
#endif
  if (n != W) __builtin_memcpy(p, words, n * sizeof(uint16_t));
}

inline V load_from(const Matrix& m, long row, long column, int n) {
  return m.bf16 ? load_bf16(m.bf16_row(row) + column, n) : load_some(m.row(row) + column, n);
}

// Has the corner of a matrix brought into the first-level cache, to be read or to be overwritten. Nothing if it is null.
template <bool overwritten>
inline void fetch(const Matrix& m, long rows, long columns) {
  if (!m.data) return;
  const long element = m.bf16 ? 2 : 4;
  for (long row = 0; row < rows; row++)
    for (long byte = 0; byte < columns * element; byte += kLineBytes)
      __builtin_prefetch((const char*)m.data + row * m.stride * element + byte, overwritten);
}

inline void store_to(const Matrix& m, long row, long column, V v, int n) {
  if (m.bf16) store_bf16(m.bf16_row(row) + column, v, n);
  else store_some(m.row(row) + column, v, n);
}

}  // namespace
}  // namespace longspan
