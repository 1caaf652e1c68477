#include "quantize.h"

#include <cmath>

#include "threads.h"

namespace longspan {

void quantize_bytes(const float* x, long rows, long width, const float* low, const float* step, int offset, uint8_t* out) {
  const FloatMode mode;
  for (long row = 0; row < rows; row++, x += width, out += width)
    for (long i = 0; i < width; i++) {
      const float level = std::floor((x[i] - low[i]) / step[i]);
      const float clipped = level > 0.0f ? (level < 255.0f ? level : 255.0f) : 0.0f;
      out[i] = static_cast<uint8_t>(static_cast<int>(clipped) - offset);
    }
}

void quantize_bits(const float* x, long rows, long width, int offset, uint8_t* out) {
  const long bytes = (width + 7) / 8;
  for (long row = 0; row < rows; row++, x += width, out += bytes)
    for (long byte = 0; byte < bytes; byte++) {
      int bits = 0;
      for (long i = byte * 8; i < byte * 8 + 8; i++) bits = bits << 1 | (i < width && x[i] > 0.0f);
      out[byte] = static_cast<uint8_t>(bits - offset);
    }
}

}  // namespace longspan
