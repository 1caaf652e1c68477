#include "program.h"

#include <algorithm>

#include "kernels/half.h"

namespace longspan {

namespace {

float element(const SourcePart& part, long index) {
  switch (part.dtype) {
    case Dtype::float32: return static_cast<const float*>(part.data)[index];
    case Dtype::float16: return from_half(static_cast<const uint16_t*>(part.data)[index]);
    case Dtype::bfloat16: return from_bfloat16(static_cast<const uint16_t*>(part.data)[index]);
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

Panels pack_panels(Program& program, const std::vector<SourcePart>& parts, long k, const float* bias, float scale) {
  const long columns = rows_of(parts);
  float* panels = allocate(program, (columns + kLine - 1) / kLine * kLine * k);
  long column = 0;
  for (const SourcePart& part : parts)
    for (long row = 0; row < part.rows; row++, column++) {
      float* line = panels + column / kLine * kLine * k + column % kLine;
      for (long i = 0; i < k; i++) line[i * kLine] = element(part, row * k + i) * scale;
    }
  return {panels, columns, k, bias};
}

Panels pack_columns(Program& program, const float* rows, long stride, long n, long k) {
  float* panels = allocate(program, (n + kLine - 1) / kLine * kLine * k);
  for (long column = 0; column < n; column += kLine)
    for (long i = 0; i < k; i++)
      std::copy_n(rows + i * stride + column, std::min<long>(kLine, n - column), panels + column * k + i * kLine);
  return {panels, n, k, nullptr};
}

const float* pack_vector(Program& program, const std::vector<SourcePart>& parts, float offset) {
  const long size = rows_of(parts);
  float* vector = allocate(program, (size + kLine - 1) / kLine * kLine);
  long at = 0;
  for (const SourcePart& part : parts)
    for (long i = 0; i < part.rows; i++) vector[at++] = element(part, i) + offset;
  return vector;
}

}  // namespace longspan
