// Vectors of the x86-64-v3 tier: AVX2 and FMA.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace longspan {
namespace {

constexpr int W = 8;
constexpr int kTileRows = 6;
constexpr int kTileVectors = 2;

typedef float V __attribute__((vector_size(W * 4)));
typedef int VI __attribute__((vector_size(W * 4)));

inline V fma(V a, V b, V c) { return (V)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }

inline V lesser_or_second(V a, V b) { return (V)_mm256_min_ps((__m256)a, (__m256)b); }
inline V greater_or_second(V a, V b) { return (V)_mm256_max_ps((__m256)a, (__m256)b); }

inline __m256i first_lanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

inline V load_n(const float* p, int n) { return (V)_mm256_maskload_ps(p, first_lanes(n)); }

inline void store_n(float* p, V v, int n) { _mm256_maskstore_ps(p, first_lanes(n), (__m256)v); }

// sum + the products of two signed words. In asm: of many intrinsics, GCC 12 calculates all products first, and spills them.
inline VI add_words(VI sum, VI left, VI right) {
  VI products;
  asm("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(products) : "x"(left), "x"(right));
  return sum;
}

constexpr bool kDot2 = false, kDot4 = false;  // whether instructions multiply pairs and bytes

// W unsigned words or bytes as lanes, and back from the lowest bits of each.
inline VI load_words(const uint16_t* p) { return (VI)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)); }
inline void store_words(uint16_t* p, VI v) {
  const __m256i words = _mm256_and_si256((__m256i)v, _mm256_set1_epi32(0xffff));
  _mm_storeu_si128((__m128i*)p, _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}
inline void store_bytes(uint8_t* p, VI v) {
  const __m256i bytes = _mm256_and_si256((__m256i)v, _mm256_set1_epi32(0xff));
  const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
  _mm_storel_epi64((__m128i*)p, _mm_packus_epi16(words, words));
}

}  // namespace
}  // namespace longspan
