// What all kernels say about vectors. The tier's own header defines W, V, VI, fma, lesser_or_second, load_n, store_n
// and more before this one. Kernels ask it what there is, by LONGSPAN_AVX512, LONGSPAN_DOT4, LONGSPAN_DOT2 and LONGSPAN_AMX:
// the compiler's own macros may name more in the baseline's file, where a user's flags allow it.
//
// Everything in kernels/ lives in an anonymous namespace and uses no std:: templates: each tier compiles its own copy
// with its own instructions, and no copy may leak into another tier at link time.
#pragma once

#include "table.h"

namespace longspan {
namespace {

typedef float UnalignedV __attribute__((vector_size(W * 4), aligned(4), may_alias));

constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: what is added to it is rounded to an integer, in the low bits

constexpr int kBlock = 256;  // every sum along K or along rows runs in blocks of this many terms

inline V load(const float* p) { return (V) * (const UnalignedV*)p; }
inline void store(float* p, V v) { *(UnalignedV*)p = (UnalignedV)v; }
inline V load_some(const float* p, int n) { return n == W ? load(p) : load_n(p, n); }

inline void store_some(float* p, V v, int n) {
  if (n == W) store(p, v);
  else store_n(p, v, n);
}

inline V zero() { return V{}; }
inline V broadcast(float x) { return x - V{}; }  // x - 0 keeps the sign of zero, x + 0 does not

inline long min_long(long a, long b) { return a < b ? a : b; }

// A NaN in `x` passes through; `bound` is never NaN.
inline V at_most(V x, float bound) { return lesser_or_second(broadcast(bound), x); }
inline V at_least(V x, float bound) { return greater_or_second(broadcast(bound), x); }

// The larger of the two; once NaN, always NaN.
inline V sticky_max(V a, V x) {
  VI take = (x > a) | (x != x);
  return take ? x : a;
}

inline V magnitude(V v) { return (V)((VI)v & 0x7fffffff); }

// A NaN in `b` leaves `a`.
inline V greater_of(V a, V b) { return greater_or_second(b, a); }
inline V lesser_of(V a, V b) { return lesser_or_second(b, a); }

// The lanes from W / 2 on, moved to the front.
inline V upper_half(V v) {
  float lanes[W + W / 2] = {};
  store(lanes, v);
  return load(lanes + W / 2);
}

inline float greatest(float a, float b) { return a > b ? a : b; }

#ifndef LONGSPAN_DOT4
// sum + the products of four unsigned bytes with signed ones. Even and odd bytes are multiplied apart, in words: exact, where
// an instruction for both would saturate.
inline VI dot4(VI sum, VI left, VI right) {
  typedef int16_t Words __attribute__((vector_size(W * 4)));
  typedef uint16_t UnsignedWords __attribute__((vector_size(W * 4)));
  sum = add_words(sum, left & 0x00ff00ff, (VI)((Words)right << 8 >> 8));
  return add_words(sum, (VI)((UnsignedWords)left >> 8), (VI)((Words)right >> 8));
}
#endif

#ifndef LONGSPAN_AVX512
// The integers nearest to small numbers, ties to even.
inline VI to_integers(V v) { return (VI)(v + broadcast(kMagic)) - (VI)broadcast(kMagic); }

// Four lanes of integers as one of bytes, the first lowest; what is beyond 0 or 255 as these.
inline VI join_bytes(VI a, VI b, VI c, VI d) {
  const auto byte = [](VI x) {
    const VI positive = x > 0 ? x : VI{};
    return positive < 255 ? positive : VI{} + 255;
  };
  return byte(a) | byte(b) << 8 | byte(c) << 16 | byte(d) << 24;
}
#endif

// The lowest bytes of the first n lanes.
inline void store_some_bytes(uint8_t* p, VI v, int n) {
  if (n == W) return store_bytes(p, v);
  uint8_t bytes[W];
  store_bytes(bytes, v);
  __builtin_memcpy(p, bytes, n);
}

// The numbers from 0 to W - 1 as template arguments: of shuffles.
template <int... lanes>
struct Lanes {};

template <int n, int... lanes>
struct CountLanes : CountLanes<n - 1, n - 1, lanes...> {};

template <int... lanes>
struct CountLanes<0, lanes...> {
  using Type = Lanes<lanes...>;
};

using EveryLane = typename CountLanes<W>::Type;

// The lanes of `a` and then `b` by their numbers.
template <int... from>
inline V shuffle(V a, V b, Lanes<from...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, from...);
#else
  return __builtin_shuffle(a, b, VI{from...});
#endif
}

// Lane i + Half moves to lane i.
template <int Half, int... lane>
inline V rotate(V v, Lanes<lane...>) {
  return shuffle(v, v, Lanes<(lane + Half) % W...>{});
}

// The lanes of both in turn, 2 W of them.
template <int... lane>
inline void store_in_turn(float* p, V first, V second, Lanes<lane...>) {
  store(p, shuffle(first, second, Lanes<(lane / 2 + (lane % 2 ? W : 0))...>{}));
  store(p + W, shuffle(first, second, Lanes<((W + lane) / 2 + (lane % 2 ? W : 0))...>{}));
}
inline void store_in_turn(float* p, V first, V second) { store_in_turn(p, first, second, EveryLane{}); }

// All lanes joined as a fixed balanced tree.
template <int Half = W / 2, class Join>
inline float join_lanes(V v, Join join) {
  v = join(v, rotate<Half>(v, EveryLane{}));
  if constexpr (Half == 1) return v[0];
  else return join_lanes<Half / 2>(v, join);
}

inline float sum_lanes(V v) {
  return join_lanes(v, [](V a, V b) { return a + b; });
}

inline float max_lanes(V v) { return join_lanes(v, greater_of); }
inline float min_lanes(V v) { return join_lanes(v, lesser_of); }

// Transposes a W x W block in registers by swapping ever smaller off-diagonal blocks (Eklundh, 1972).
template <int Half, int... lane>
inline void swap_blocks(V& first, V& second, Lanes<lane...>) {
  const V a = first, b = second;
  first = shuffle(a, b, Lanes<((lane & Half) ? W + lane - Half : lane)...>{});
  second = shuffle(a, b, Lanes<((lane & Half) ? W + lane : lane + Half)...>{});
}

template <int Half>
inline void transpose_step(V (&rows)[W]) {
#pragma GCC unroll 16
  for (int i = 0; i < W; i++)
    if (!(i & Half)) swap_blocks<Half>(rows[i], rows[i + Half], EveryLane{});
}

inline void transpose(V (&rows)[W]) {
  if constexpr (W >= 16) transpose_step<8>(rows);
  if constexpr (W >= 8) transpose_step<4>(rows);
  transpose_step<2>(rows);
  transpose_step<1>(rows);
}

// Lane i has all lanes of parts[i] joined, by the tree of join_lanes.
template <class Join>
inline V join_each(V (&parts)[W], Join join) {
  transpose(parts);
#pragma GCC unroll 4
  for (int half = W / 2; half > 0; half /= 2)
#pragma GCC unroll 8
    for (int i = 0; i < half; i++) parts[i] = join(parts[i], parts[i + half]);
  return parts[0];
}

}  // namespace
}  // namespace longspan
