// quantize_bytes and quantize_bits: vectors in the output formats of a byte or a bit a component.
#pragma once

#include "vector.h"

namespace longspan {
namespace {

void quantize_bytes(const float* x, long rows, long width, const float* low, const float* step, uint8_t flip, uint8_t* out) {
  for (long row = 0; row < rows; row++, x += width, out += width)
    for (long i = 0; i < width; i += W) {
      const int n = (int)min_long(W, width - i);
      const V level = (load_some(x + i, n) - load_some(low + i, n)) / load_some(step + i, n);
      const V clipped = at_most(greater_of(zero(), level), 255.0f);  // of a NaN: zero
      store_some_bytes(out + i, __builtin_convertvector(clipped, VI) ^ flip, n);
    }
}

// Bit W - 1 - i is set where lane i is positive. Denormal numbers are, whatever the machine takes them for.
template <int... lane>
inline unsigned positive_bits(V v, Lanes<lane...>) {
  const VI positive = ((VI)v > 0) & ((VI)v <= 0x7f800000);
  const V worth = V{(float)(1 << (W - 1 - lane))...};
  return (unsigned)sum_lanes(positive ? worth : zero());
}

void quantize_bits(const float* x, long rows, long width, uint8_t flip, uint8_t* out) {
  constexpr int kSpan = 16;  // components that are looked at together: two bytes
  for (long row = 0; row < rows; row++, x += width)
    for (long i = 0; i < width; i += kSpan) {
      unsigned bits = 0;
      for (long at = i; at < i + kSpan; at += W)
        bits = bits << W | (at < width ? positive_bits(load_some(x + at, (int)min_long(W, width - at)), EveryLane{}) : 0);
      *out++ = (uint8_t)(bits >> 8 ^ flip);
      if (i + 8 < width) *out++ = (uint8_t)(bits ^ flip);
    }
}

}  // namespace
}  // namespace longspan
