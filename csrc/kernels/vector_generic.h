// Vectors of the baseline tier: whatever every machine of the architecture has.
#pragma once

#include <cstdint>

namespace longspan {
namespace {

constexpr int W = 4;         // float lanes
constexpr int kTileRows = 6;  // register tile of products: kTileRows x kTileVectors accumulators
constexpr int kTileVectors = 2;

typedef float V __attribute__((vector_size(W * 4)));
typedef int VI __attribute__((vector_size(W * 4)));

#ifdef __FP_FAST_FMAF
inline V fma(V a, V b, V c) {
  V r;
  for (int i = 0; i < W; i++) r[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return r;
}
#else
inline V fma(V a, V b, V c) { return a * b + c; }  // two roundings: the baseline has no fused form
#endif

// The second where the two are equal, or one of them is NaN.
inline V lesser_or_second(V a, V b) { return a < b ? a : b; }
inline V greater_or_second(V a, V b) { return a > b ? a : b; }

inline V load_n(const float* p, int n) {
  V v = {};
  for (int i = 0; i < n; i++) v[i] = p[i];
  return v;
}

inline void store_n(float* p, V v, int n) {
  for (int i = 0; i < n; i++) p[i] = v[i];
}

// sum + the products of two signed words.
inline VI add_words(VI sum, VI left, VI right) {
  return sum + (left << 16 >> 16) * (right << 16 >> 16) + (left >> 16) * (right >> 16);
}

constexpr bool kDot2 = false, kDot4 = false;  // whether instructions multiply pairs and bytes

// W unsigned words or bytes as lanes, and back from the lowest bits of each.
inline VI load_words(const uint16_t* p) { return VI{p[0], p[1], p[2], p[3]}; }
inline void store_words(uint16_t* p, VI v) {
  for (int i = 0; i < W; i++) p[i] = (uint16_t)v[i];
}
inline void store_bytes(uint8_t* p, VI v) {
  for (int i = 0; i < W; i++) p[i] = (uint8_t)v[i];
}

}  // namespace
}  // namespace longspan
