// The two 16-bit floats as checkpoints store them.
#pragma once

#include <cstdint>

#include "table.h"

namespace longspan {
namespace {

inline float float_of_bits(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

inline float from_half(uint16_t bits) {
  const uint32_t sign = (uint32_t)(bits & 0x8000) << 16;
  const uint32_t exponent = bits >> 10 & 0x1f, fraction = bits & 0x3ff;
  if (exponent == 0) {  // zero and subnormals: units of 2^-24
    const float value = (float)fraction * 0x1p-24f;
    return sign ? -value : value;
  }
  return float_of_bits(sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13);
}

// Rounds to the nearest, ties to even; a NaN stays one.
inline uint16_t to_bfloat16(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  if (value != value) return (uint16_t)(bits >> 16 | 0x40);
  return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline float from_bfloat16(uint16_t bits) { return float_of_bits((uint32_t)bits << 16); }

// A number of a checkpoint's array.
inline float element(const void* data, Dtype dtype, long index) {
  switch (dtype) {
    case Dtype::float32: return ((const float*)data)[index];
    case Dtype::float16: return from_half(((const uint16_t*)data)[index]);
    case Dtype::bfloat16: return from_bfloat16(((const uint16_t*)data)[index]);
  }
  return 0;
}

}  // namespace
}  // namespace longspan
