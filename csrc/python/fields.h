// What an instruction's fields are, read and checked: buffers, weights, numbers.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <list>
#include <string>
#include <vector>

#include "../program.h"
#include "panels.h"
#include "reject.h"

namespace longspan {

namespace py = pybind11;

inline Dtype dtype_of(const std::string& name) {
  return one_of<Dtype>(name, {{"F32", Dtype::float32}, {"F16", Dtype::float16}, {"BF16", Dtype::bfloat16}});
}

inline Activation activation_of(const py::dict& fields) {
  return one_of<Activation>(fields["activation"].cast<std::string>(),
                            {{"identity", Activation::identity},
                             {"gelu", Activation::gelu},
                             {"gelu_tanh", Activation::gelu_tanh},
                             {"relu", Activation::relu},
                             {"silu", Activation::silu},
                             {"tanh", Activation::tanh}});
}

inline const char* name_of(Rows rows) {
  switch (rows) {
    case Rows::tokens: return "tokens";
    case Rows::tile: return "a tile";
    case Rows::partials: return "partials";
    case Rows::vectors: return "vectors";
  }
  return "";
}

constexpr long kMostTerms = 65536;  // of int8: the largest sums fit 32 bits

// Reads one instruction's fields. Weights arrive as lists of (array, dtype) parts, or where a file holds them in panels as
// records of these; buffers as indices.
class Fields {
 public:
  Fields(Program& program, std::vector<py::object>& kept, const py::dict& fields)
      : program_(program), kept_(kept), fields_(fields) {}

  long integer(const char* name) const { return fields_[name].cast<long>(); }
  float number(const char* name) const { return fields_[name].cast<float>(); }
  std::string text(const char* name) const { return fields_[name].cast<std::string>(); }
  bool flag(const char* name) const { return fields_[name].cast<bool>(); }
  bool given(const char* name) const { return fields_.contains(name) && !fields_[name].is_none(); }
  const py::dict& dict() const { return fields_; }

  // A buffer of one kind of rows, of float32 unless it may be narrow.
  int any_buffer(const char* name, Rows rows) const {
    const int index = fields_[name].cast<int>();
    if (index < 0 || index >= static_cast<int>(program_.buffers.size())) reject(std::string("no such buffer: ") + name);
    if (program_.buffers[index].rows != rows)
      reject(std::string(name) + " has rows for " + name_of(program_.buffers[index].rows) + ", expected them for " + name_of(rows));
    return index;
  }
  int buffer(const char* name, Rows rows) const {
    const int index = any_buffer(name, rows);
    if (program_.buffers[index].bf16) reject(std::string(name) + " holds bfloat16, expected float32");
    return index;
  }
  int optional_buffer(const char* name, Rows rows) const { return given(name) ? buffer(name, rows) : kNoBuffer; }

  // The same, of so many columns.
  int any_buffer(const char* name, Rows rows, long width) const { return check_width(name, any_buffer(name, rows), width); }
  int buffer(const char* name, Rows rows, long width) const { return check_width(name, buffer(name, rows), width); }
  int optional_buffer(const char* name, Rows rows, long width) const {
    return given(name) ? buffer(name, rows, width) : kNoBuffer;
  }

  const float* vector(const char* name, long size, float offset = 0.0f) {
    if (!given(name)) return nullptr;
    const auto parts = source(name, 1, 0);
    check(name, rows(parts), size);
    return pack_vector(program_, parts, offset);
  }

  // Numbers that are no weights, such as ALiBi's slopes.
  const float* numbers(const char* name, long size) {
    const auto values = fields_[name].cast<std::vector<float>>();
    if (values.empty()) return nullptr;
    check(name, static_cast<long>(values.size()), size);
    return pack_vector(program_, {{values.data(), Dtype::float32, size}});
  }

  // A table [rows, columns] that the kernels read by rows.
  const float* matrix(const char* name, long rows_expected, long columns) {
    auto parts = source(name, 2, columns);
    check(name, rows(parts), rows_expected);
    for (SourcePart& part : parts) part.rows *= columns;
    return pack_vector(program_, parts);
  }

  // What the instruction's weights are packed as.
  Format format() const {
    return format_of(text("format"));
  }

  Panels panels(const char* weight, const char* bias, long columns, long k, Format format) {
    if (format == Format::int8 && k > kMostTerms) reject(std::string(weight) + " has too many columns for int8");
    const float* added = bias ? vector(bias, columns) : nullptr;
    if (in_panels(weight)) return mapped_panels(kept_, fields_[weight], 1, columns, k, added, format)[0];
    const auto parts = source(weight, 2, k);
    check(weight, rows(parts), columns);
    return pack_panels(program_, parts, k, added, format, inputs(weight, 1, k)[0]);
  }

  // How far the columns of the left operands of so many products reach, [k] each, or nothing if that is not known.
  std::vector<std::vector<float>> inputs(const char* weight, long count, long k) const {
    std::vector<std::vector<float>> reach(count);
    if (!given("inputs")) return reach;
    const py::dict known = fields_["inputs"];
    if (!known.contains(weight)) return reach;
    const auto rows = known[weight].cast<py::array_t<float, py::array::c_style | py::array::forcecast>>();
    if (rows.ndim() != 2 || rows.shape(0) != count || rows.shape(1) != k)
      reject(std::string(weight) + ": inputs are not as many as its columns");
    for (long i = 0; i < count; i++) reach[i].assign(rows.data(i, 0), rows.data(i, 0) + k);
    return reach;
  }
  Panels optional_panels(const char* weight, const char* bias, long columns, long k, Format format) {
    return given(weight) ? panels(weight, bias, columns, k, format) : Panels{nullptr, columns, k, nullptr};
  }

  // Several weights, [count * columns, k], each packed by itself.
  std::vector<Panels> stack(const char* weight, long count, long columns, long k, Format format, float scale = 1.0f) {
    std::vector<Panels> packed;
    if (format == Format::int8 && k > kMostTerms) reject(std::string(weight) + " has too many columns for int8");
    if (in_panels(weight)) return mapped_panels(kept_, fields_[weight], count, columns, k, nullptr, format);
    const auto parts = source(weight, 2, k);
    check(weight, rows(parts), count * columns);
    const auto reach = inputs(weight, count, k);
    for (const SourcePart& part : parts) {
      if (part.rows % columns) reject(std::string(weight) + ": a part ends inside a weight");
      const long bytes = columns * k * (part.dtype == Dtype::float32 ? 4 : 2);
      for (long i = 0; i < part.rows / columns; i++) {
        const std::vector<SourcePart> one{{static_cast<const char*>(part.data) + i * bytes, part.dtype, columns}};
        packed.push_back(format == Format::float32 ? pack_panels(program_, one, k, nullptr, scale)
                                                   : pack_panels(program_, one, k, nullptr, format, reach[packed.size()]));
      }
    }
    return packed;
  }

  // How many rows a matrix has, all its parts together, and how many columns.
  long rows(const char* name) const {
    long total = 0;
    for (const auto& item : parts_of(name)) total += item.cast<std::pair<py::array, std::string>>().first.shape(0);
    return total;
  }
  long columns(const char* name) const {
    const auto parts = parts_of(name).cast<std::vector<std::pair<py::array, std::string>>>();
    if (parts.empty() || parts[0].first.ndim() != 2) reject(std::string(name) + " is no matrix");
    return parts[0].first.shape(1);
  }

  Program& program() { return program_; }
  // The same fields, with another program to pack their weights into.
  Fields into(Program& program) const { return Fields(program, kept_, fields_); }

  // A record among the fields.
  Fields record(const char* name) {
    records_.push_back(fields_[name].cast<py::dict>());
    return Fields(program_, kept_, records_.back());
  }

  Table table(const char* name, long width) {
    if (!given(name)) return {nullptr, Dtype::float32, 0, width};
    const auto parts = source(name, 2, width);
    if (parts.size() != 1) reject(std::string(name) + ": a table has one part");
    if (parts[0].rows < 1) reject(std::string(name) + ": a table has rows");
    kept_.push_back(fields_[name]);  // rows are read from the array itself, for as long as the program lives
    return {parts[0].data, parts[0].dtype, parts[0].rows, width};
  }

 private:
  bool in_panels(const char* name) const { return given(name) && py::isinstance<py::dict>(fields_[name]); }

  py::list parts_of(const char* name) const {
    if (!given(name)) reject(std::string("there is no ") + name);
    return fields_[name].cast<py::list>();
  }

  static long rows(const std::vector<SourcePart>& parts) {
    long total = 0;
    for (const auto& part : parts) total += part.rows;
    return total;
  }

  int check_width(const char* name, int index, long width) const {
    if (program_.width(index) != width)
      reject(std::string(name) + " has " + std::to_string(program_.width(index)) + " columns, expected " +
             std::to_string(width));
    return index;
  }

  static void check(const char* name, long found, long expected) {
    if (found != expected)
      reject(std::string(name) + " has " + std::to_string(found) + " rows, expected " + std::to_string(expected));
  }

  std::vector<SourcePart> source(const char* name, int dimensions, long columns) {
    std::vector<SourcePart> parts;
    for (const auto& item : parts_of(name)) {
      const auto pair = item.cast<std::pair<py::array, std::string>>();
      const Dtype dtype = dtype_of(pair.second);
      const py::array& array = pair.first;
      const long itemsize = dtype == Dtype::float32 ? 4 : 2;
      const char kind = dtype == Dtype::bfloat16 ? 'u' : 'f';  // numpy has no bfloat16: its bits are unsigned integers
      const bool same = array.itemsize() == itemsize && array.dtype().kind() == kind && array.dtype().byteorder() == '=';
      const bool shaped = array.ndim() == dimensions && (dimensions != 2 || array.shape(1) == columns);
      if (!same || !shaped || !(array.flags() & py::array::c_style) || reinterpret_cast<uintptr_t>(array.data()) % itemsize)
        reject(std::string(name) + " is not a C-contiguous, aligned " + pair.second + " array of the expected shape");
      parts.push_back({array.data(), dtype, static_cast<long>(array.shape(0))});
    }
    return parts;
  }

  Program& program_;
  std::vector<py::object>& kept_;
  const py::dict& fields_;
  std::list<py::dict> records_;
};

}  // namespace longspan
