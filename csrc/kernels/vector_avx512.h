// Vectors of the x86-64-v4 tiers: AVX-512 F, BW, CD, DQ and VL, and the products that the compiler's flags allow.
#pragma once

#include <immintrin.h>

#include <cstdint>

#define LONGSPAN_AVX512
#ifdef __AVX512VNNI__
#define LONGSPAN_DOT4
#endif
#ifdef __AVX512BF16__
#define LONGSPAN_DOT2
#endif
#ifdef __AMX_TILE__
#define LONGSPAN_AMX
#endif

namespace longspan {
namespace {

constexpr int W = 16;
constexpr int kTileRows = 12;
constexpr int kTileVectors = 2;

typedef float V __attribute__((vector_size(W * 4)));
typedef int VI __attribute__((vector_size(W * 4)));

inline V fma(V a, V b, V c) { return (V)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }

inline V lesser_or_second(V a, V b) { return (V)_mm512_min_ps((__m512)a, (__m512)b); }
inline V greater_or_second(V a, V b) { return (V)_mm512_max_ps((__m512)a, (__m512)b); }

inline __mmask16 first_lanes(int n) { return (__mmask16)((1u << n) - 1); }

inline V load_n(const float* p, int n) { return (V)_mm512_maskz_loadu_ps(first_lanes(n), p); }

inline void store_n(float* p, V v, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), (__m512)v); }

// The products are in asm: as intrinsics in a large tile, GCC 12 spills them.
#ifdef LONGSPAN_DOT4
constexpr bool kDot4 = true;
inline VI dot4(VI sum, VI left, VI right) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(left), "v"(right));
  return sum;
}
#else
constexpr bool kDot4 = false;
// sum + the products of two signed words.
inline VI add_words(VI sum, VI left, VI right) {
  VI products;
  asm("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+v"(sum), "=&v"(products) : "v"(left), "v"(right));
  return sum;
}
#endif

#ifdef LONGSPAN_DOT2
constexpr bool kDot2 = true;
inline V dot2(V sum, VI left, VI right) {
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(left), "v"(right));
  return sum;
}
#else
constexpr bool kDot2 = false;
#endif

// W unsigned words or bytes as lanes, and back from the lowest bits of each.
inline VI load_words(const uint16_t* p) { return (VI)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)); }
inline void store_words(uint16_t* p, VI v) { _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16((__m512i)v)); }
inline void store_bytes(uint8_t* p, VI v) { _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8((__m512i)v)); }

// The integers nearest to numbers, ties to even.
inline VI to_integers(V v) { return (VI)_mm512_cvtps_epi32((__m512)v); }

// Four lanes of integers as one of bytes, the first lowest; what is beyond 0 or 255 as these.
inline VI join_bytes(VI a, VI b, VI c, VI d) {
  const __m512i first = _mm512_packs_epi32((__m512i)a, (__m512i)b), second = _mm512_packs_epi32((__m512i)c, (__m512i)d);
  const __m512i in_turn = _mm512_set4_epi32(0x0f0b0703, 0x0e0a0602, 0x0d090501, 0x0c080400);
  return (VI)_mm512_shuffle_epi8(_mm512_packus_epi16(first, second), in_turn);
}

}  // namespace
}  // namespace longspan
