// Vectors of the x86-64-v3 tier: AVX2 and FMA.
#pragma once

#include <immintrin.h>

namespace longspan {
namespace {

constexpr int W = 8;
constexpr int kTileRows = 6;
constexpr int kTileVectors = 2;

typedef float V __attribute__((vector_size(W * 4)));
typedef int VI __attribute__((vector_size(W * 4)));

inline V fma(V a, V b, V c) { return (V)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }

inline __m256i first_lanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

inline V load_n(const float* p, int n) { return (V)_mm256_maskload_ps(p, first_lanes(n)); }

inline void store_n(float* p, V v, int n) { _mm256_maskstore_ps(p, first_lanes(n), (__m256)v); }

}  // namespace
}  // namespace longspan
