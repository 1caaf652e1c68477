#include "program.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <iterator>
#include <utility>

#include "kernels/half.h"

namespace longspan {

namespace {

float element(const SourcePart& part, long index) { return element(part.data, part.dtype, index); }

long rows_of(const std::vector<SourcePart>& parts) {
  long rows = 0;
  for (const SourcePart& part : parts) rows += part.rows;
  return rows;
}

float* allocate(Program& program, long floats) {
  program.storage.emplace_back(static_cast<size_t>(floats) * sizeof(float));
  return reinterpret_cast<float*>(program.storage.back().data());  // fresh pages: zero
}

// Calls visit(column, part, index of the row's first element) for each row [k] of the parts.
template <class Visit>
void each_row(const std::vector<SourcePart>& parts, long k, Visit visit) {
  long column = 0;
  for (const SourcePart& part : parts)
    for (long row = 0; row < part.rows; row++) visit(column++, part, row * k);
}

}  // namespace

void Program::take(Program&& other) {
  const auto make_room = [](const auto& from, auto& to) { to.reserve(to.size() + from.size()); };
  make_room(other.instructions, instructions);
  make_room(other.stages, stages);
  make_room(other.storage, storage);
  make_room(other.table_files, table_files);
  const auto move = [](auto& from, auto& to) {
    std::move(from.begin(), from.end(), std::back_inserter(to));
    from.clear();
  };
  move(other.instructions, instructions);
  move(other.stages, stages);
  move(other.storage, storage);
  move(other.table_files, table_files);
  tasks = std::max(tasks, other.tasks);
}

Panels pack_panels(Program& program, const std::vector<SourcePart>& parts, long k, const float* bias, float scale) {
  const long columns = rows_of(parts);
  float* panels = allocate(program, Panels::padded(columns) * k);
  each_row(parts, k, [&](long column, const SourcePart& part, long first) {
    float* line = panels + column / kLine * kLine * k + column % kLine;
    for (long i = 0; i < k; i++) line[i * kLine] = element(part, first + i) * scale;
  });
  return {panels, columns, k, bias};
}

namespace {

// Where the words of a column begin.
float* column_of(float* panels, long column, long lines) { return panels + column / kLine * kLine * lines + column % kLine; }

Panels pack_bfloat16(Program& program, const std::vector<SourcePart>& parts, long k, const float* bias) {
  const long columns = rows_of(parts), lines = Panels::lines_of(Format::bfloat16, k);
  float* panels = allocate(program, Panels::padded(columns) * lines);
  each_row(parts, k, [&](long column, const SourcePart& part, long first) {
    uint16_t* words = reinterpret_cast<uint16_t*>(column_of(panels, column, lines));
    for (long i = 0; i < k; i++) words[i / 2 * 2 * kLine + i % 2] = to_bfloat16(element(part, first + i));
  });
  return {panels, columns, k, bias, Format::bfloat16};
}

// Raises each to a share of their mean: what samples show of a column that they hardly reach is no measure of it.
void at_least_a_share_of_the_mean(std::vector<float>& reach) {
  constexpr float kShare = 0.25f;
  float sum = 0;  // without columns that reached infinity, which stay as they are
  for (const float most : reach) sum += std::isfinite(most) ? most : 0;
  for (float& most : reach) most = std::max(most, kShare * sum / static_cast<float>(reach.size()));
}

// What the left operand's columns are multiplied with: sqrt(reach of the weight's column / reach of the input's).
const float* smooth_columns(Program& program, const std::vector<SourcePart>& parts, long k, std::vector<float> inputs) {
  if (inputs.empty()) return nullptr;
  at_least_a_share_of_the_mean(inputs);
  std::vector<float> reach(k);
  each_row(parts, k, [&](long, const SourcePart& part, long first) {
    for (long i = 0; i < k; i++) reach[i] = std::max(reach[i], std::abs(element(part, first + i)));
  });
  float* smooth = allocate(program, Panels::padded(k));
  for (long i = 0; i < k; i++) {
    const float ratio = std::sqrt(reach[i] / inputs[i]);
    smooth[i] = std::isfinite(ratio) && ratio > 0 ? std::clamp(ratio, 1e-4f, 1e4f) : 1.0f;
  }
  return smooth;
}

Panels pack_int8(Program& program, const std::vector<SourcePart>& parts, long k, const float* bias,
                 const std::vector<float>& inputs) {
  const float* smooth = smooth_columns(program, parts, k, inputs);
  const long columns = rows_of(parts), lines = Panels::lines_of(Format::int8, k);
  float* panels = allocate(program, Panels::padded(columns) * lines);
  float* scales = allocate(program, Panels::padded(columns));
  float* totals = allocate(program, Panels::padded(columns));
  std::vector<float> row(k);
  each_row(parts, k, [&](long column, const SourcePart& part, long first) {
    float most = 0, poison = 0;  // a weight that is no number makes its column NaN
    for (long i = 0; i < k; i++) {
      row[i] = element(part, first + i) / (smooth ? smooth[i] : 1.0f);
      most = std::max(most, std::abs(row[i]));
      poison += row[i] * 0;
    }
    const bool known = poison == 0;
    const float step = known && most > 0 ? std::max(most / 127, FLT_MIN) : 1.0f;
    int8_t* codes = reinterpret_cast<int8_t*>(column_of(panels, column, lines));
    long total = 0;
    for (long i = 0; i < k; i++) {
      const long code = known ? std::lrintf(row[i] / step) : 0;
      codes[i / 4 * 4 * kLine + i % 4] = static_cast<int8_t>(code);
      total += code;
    }
    scales[column] = step + poison;
    totals[column] = static_cast<float>(total);
  });
  return {panels, columns, k, bias, Format::int8, scales, totals, smooth};
}

}  // namespace

Panels pack_panels(Program& program, const std::vector<SourcePart>& parts, long k, const float* bias, Format format,
                   const std::vector<float>& inputs) {
  switch (format) {
    case Format::bfloat16: return pack_bfloat16(program, parts, k, bias);
    case Format::int8: return pack_int8(program, parts, k, bias, inputs);
    case Format::float32: break;
  }
  return pack_panels(program, parts, k, bias);
}

Panels pack_columns(Program& program, const float* rows, long stride, long n, long k) {
  float* panels = allocate(program, Panels::padded(n) * k);
  for (long column = 0; column < n; column += kLine)
    for (long i = 0; i < k; i++)
      std::copy_n(rows + i * stride + column, std::min<long>(kLine, n - column), panels + column * k + i * kLine);
  return {panels, n, k, nullptr};
}

const float* pack_vector(Program& program, const std::vector<SourcePart>& parts, float offset) {
  const long size = rows_of(parts);
  float* vector = allocate(program, Panels::padded(size));
  long at = 0;
  for (const SourcePart& part : parts)
    for (long i = 0; i < part.rows; i++) vector[at++] = element(part, i) + offset;
  return vector;
}

}  // namespace longspan
