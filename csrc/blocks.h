// How a product is cut into blocks of rows, and what scratch a thread needs for them.
#pragma once

#include <algorithm>

#include "program.h"

namespace longspan {

constexpr long kNearCache = 512 * 1024;  // bytes of rows that stay close while a weight streams past

// What the rows of a block are multiples of: those of the widest register tile, or AMX's.
inline long block_step(const Panels& weight) { return weight.format == Format::float32 ? 12 : 32; }

// The most rows of a block.
inline long most_rows(const Panels& weight) {
  const long row_bytes = weight.k * 4 / Panels::terms(weight.format), step = block_step(weight);
  return std::clamp(kNearCache / row_bytes / step * step, 4 * step, 384L);
}

// Bytes of scratch of one thread: for attention, and for the left operands of products. `tile_rows` are the rows of the
// tile buffers.
long scratch_bytes(const Program& program, long tile_rows);

}  // namespace longspan
