// AMX: eight tiles of 16 rows of 64 bytes. Single instructions in asm, ordered with everything that touches memory.
#pragma once

#include <cstdint>

namespace longspan {
namespace {

// The shape of all tiles is set when a kernel starts, and given up when it ends: a thread without tiles in use is
// switched without saving them.
class TilesInUse {
 public:
  TilesInUse() {
    struct alignas(64) {
      uint8_t palette = 1, start = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } shape;
    asm volatile("ldtilecfg %0" : : "m"(shape));
  }
  ~TilesInUse() { asm volatile("tilerelease" : : : "memory"); }
  TilesInUse(const TilesInUse&) = delete;
  TilesInUse& operator=(const TilesInUse&) = delete;
};

template <int tile>
inline void tile_zero() {
  asm volatile("tilezero %%tmm%c0" : : "i"(tile));
}

// 16 rows, `stride` bytes apart.
template <int tile>
inline void tile_load(const void* data, long stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(data), "r"(stride), "i"(tile) : "memory");
}

template <int tile>
inline void tile_store(void* data, long stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(data), "r"(stride), "i"(tile) : "memory");
}

// sum += left x right: 16 x 32 times 32 x 16 bfloat16, or 16 x 64 unsigned times 64 x 16 signed bytes.
template <bool bytes, int sum, int left, int right>
inline void tile_multiply() {
  if constexpr (bytes) asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sum), "i"(left), "i"(right));
  else asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sum), "i"(left), "i"(right));
}

}  // namespace
}  // namespace longspan
