// The output formats of vectors.
#pragma once

#include <cstdint>

namespace longspan {

// 0 .. 255 by floor((x - low) / step), clipped; NaN gives 0. `offset` is subtracted: 128 for int8, 0 for uint8.
void quantize_bytes(const float* x, long rows, long width, const float* low, const float* step, int offset, uint8_t* out);

// One bit a component, set where x > 0, most significant first; the last byte of a row is padded with zeros.
void quantize_bits(const float* x, long rows, long width, int offset, uint8_t* out);

}  // namespace longspan
