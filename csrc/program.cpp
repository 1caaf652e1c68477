#include "program.h"

#include <cstring>

namespace longspan {

namespace {

constexpr long kPanel = 16;

float half_to_float(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
  const uint32_t exponent = bits >> 10 & 0x1f, fraction = bits & 0x3ff;
  if (exponent == 0) {
    const float value = static_cast<float>(fraction) * 0x1p-24f;
    return sign ? -value : value;
  }
  const uint32_t wide = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}

float element(const SourcePart& part, long index) {
  switch (part.dtype) {
    case Dtype::float32: return static_cast<const float*>(part.data)[index];
    case Dtype::float16: return half_to_float(static_cast<const uint16_t*>(part.data)[index]);
    case Dtype::bfloat16: {
      const uint32_t wide = static_cast<uint32_t>(static_cast<const uint16_t*>(part.data)[index]) << 16;
      float value;
      std::memcpy(&value, &wide, 4);
      return value;
    }
  }
  return 0;
}

long rows_of(const std::vector<SourcePart>& parts) {
  long rows = 0;
  for (const SourcePart& part : parts) rows += part.rows;
  return rows;
}

float* allocate(Program& program, long floats) {
  program.storage.emplace_back(static_cast<size_t>(floats) * sizeof(float));
  return reinterpret_cast<float*>(program.storage.back().data());  // fresh pages: zero
}

}  // namespace

Panels pack_panels(Program& program, const std::vector<SourcePart>& parts, long k, const float* bias) {
  const long columns = rows_of(parts);
  float* panels = allocate(program, (columns + kPanel - 1) / kPanel * kPanel * k);
  long column = 0;
  for (const SourcePart& part : parts)
    for (long row = 0; row < part.rows; row++, column++) {
      float* line = panels + column / kPanel * kPanel * k + column % kPanel;
      for (long i = 0; i < k; i++) line[i * kPanel] = element(part, row * k + i);
    }
  return {panels, columns, k, bias};
}

const float* pack_vector(Program& program, const std::vector<SourcePart>& parts) {
  const long size = rows_of(parts);
  float* vector = allocate(program, (size + kPanel - 1) / kPanel * kPanel);
  long at = 0;
  for (const SourcePart& part : parts)
    for (long i = 0; i < part.rows; i++) vector[at++] = element(part, i);
  return vector;
}

}  // namespace longspan
