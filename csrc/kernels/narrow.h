// Rows of bfloat16 as vectors of float32, and matrices of either.
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

inline void store_bf16(uint16_t* p, V v, int n) {
  uint16_t words[W];
  uint16_t* at = n == W ? p : words;
#ifdef __AVX512BF16__
  _mm256_storeu_si256((__m256i*)at, (__m256i)_mm512_cvtneps_pbh((__m512)v));
#else
  store_words(at, narrow(v));
#endif
  if (n != W) __builtin_memcpy(p, words, n * sizeof(uint16_t));
}

inline V load_from(const Matrix& m, long row, long column, int n) {
  return m.bf16 ? load_bf16(m.bf16_row(row) + column, n) : load_some(m.row(row) + column, n);
}

inline void store_to(const Matrix& m, long row, long column, V v, int n) {
  if (m.bf16) store_bf16(m.bf16_row(row) + column, v, n);
  else store_some(m.row(row) + column, v, n);
}

}  // namespace
}  // namespace longspan
