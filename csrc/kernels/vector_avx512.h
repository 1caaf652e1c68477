// Vectors of the x86-64-v4 tier: AVX-512 F, BW, CD, DQ and VL.
#pragma once

#include <immintrin.h>

namespace longspan {
namespace {

constexpr int W = 16;
constexpr int kTileRows = 12;
constexpr int kTileVectors = 2;

typedef float V __attribute__((vector_size(W * 4)));
typedef int VI __attribute__((vector_size(W * 4)));

inline V fma(V a, V b, V c) { return (V)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }

inline __mmask16 first_lanes(int n) { return (__mmask16)((1u << n) - 1); }

inline V load_n(const float* p, int n) { return (V)_mm512_maskz_loadu_ps(first_lanes(n), p); }

inline void store_n(float* p, V v, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), (__m512)v); }

}  // namespace
}  // namespace longspan
