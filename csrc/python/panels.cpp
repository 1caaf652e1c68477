#include "panels.h"

#include <algorithm>
#include <string>

#include "instructions.h"
#include "reject.h"

namespace py = pybind11;

namespace longspan {

namespace {

constexpr uintptr_t kAlignment = 64;  // of a line

using Shape = std::vector<py::ssize_t>;

py::dtype words_of(Format format) {
  switch (format) {
    case Format::int8: return py::dtype::of<int8_t>();
    case Format::bfloat16: return py::dtype::of<uint16_t>();
    case Format::float32: break;
  }
  return py::dtype::of<float>();
}

Shape shape_of(Format format, long columns, long k) {
  return {Panels::padded(columns) / kLine, Panels::lines_of(format, k), kLine, Panels::terms(format)};
}

std::string text_of(const Shape& shape) {
  std::string text;
  for (const py::ssize_t side : shape) text += (text.empty() ? "[" : ", ") + std::to_string(side);
  return text + "]";
}

// The data of a record's array, once it is what is expected.
const void* checked(const py::dict& record, const char* part, const py::dtype& dtype, const Shape& shape) {
  const std::string name = record["name"].cast<std::string>() + "." + part;
  const std::string wanted = "an aligned array " + text_of(shape) + " of " + py::str(dtype).cast<std::string>();
  if (!record.contains(part)) reject("there is no " + name + ", " + wanted);
  const py::object given = record[part];  // what a cast would make of anything else does not live on
  if (!py::isinstance<py::array>(given)) reject(name + " is not " + wanted);
  const py::array array = py::reinterpret_borrow<py::array>(given);
  const bool same = array.ndim() == static_cast<py::ssize_t>(shape.size()) && std::equal(shape.begin(), shape.end(), array.shape());
  if (!same || !array.dtype().equal(dtype) || !(array.flags() & py::array::c_style) ||
      reinterpret_cast<uintptr_t>(array.data()) % kAlignment)
    reject(name + " is not " + wanted);
  return array.data();
}

py::array view(const py::dtype& dtype, const Shape& shape, const void* data, const py::object& owner) {
  py::array array(dtype, shape, data, owner);
  array.attr("setflags")(py::arg("write") = false);
  return array;
}

py::tuple arrays_of(const Panels& panels, const py::object& owner) {
  const auto vector = [&](const float* data, long size) -> py::object {
    return data ? view(py::dtype::of<float>(), {Panels::padded(size)}, data, owner) : py::object(py::none());
  };
  return py::make_tuple(view(words_of(panels.format), shape_of(panels.format, panels.columns, panels.k), panels.data, owner),
                        vector(panels.scales, panels.columns), vector(panels.totals, panels.columns), vector(panels.smooth, panels.k));
}

}  // namespace

std::vector<Panels> mapped_panels(std::vector<py::object>& kept, const py::dict& record, long count, long columns, long k,
                                  const float* bias, Format format) {
  const std::string name = record["name"].cast<std::string>();
  if (format_of(record["format"].cast<std::string>()) != format)
    reject(name + " is stored in panels of another format");
  Shape shape = shape_of(format, columns, k);
  const long lines = shape[0] * shape[1];  // of one weight
  shape[0] *= count;
  const float* data = static_cast<const float*>(checked(record, "panels", words_of(format), shape));
  const auto vector = [&](const char* part, long size) {
    return static_cast<const float*>(checked(record, part, py::dtype::of<float>(), {count * Panels::padded(size)}));
  };
  const bool coded = format == Format::int8;
  const float* scales = coded ? vector("scales", columns) : nullptr;
  const float* totals = coded ? vector("totals", columns) : nullptr;
  const float* smooth = coded && record.contains("smooth") ? vector("smooth", k) : nullptr;
  kept.push_back(record);
  std::vector<Panels> weights;
  for (long i = 0; i < count; i++) {
    const auto own = [i](const float* vectors, long size) { return vectors ? vectors + i * Panels::padded(size) : nullptr; };
    weights.push_back({data + i * lines * kLine, columns, k, bias, format, own(scales, columns), own(totals, columns), own(smooth, k)});
  }
  return weights;
}

py::dict panels_of(const Instruction& instruction, const py::object& owner) {
  py::dict found;
  each_matrix(instruction, [&](const char* field, const std::vector<Panels>& matrices) {
    py::list arrays;
    for (const Panels& panels : matrices) arrays.append(arrays_of(panels, owner));
    found[field] = arrays;
  });
  return found;
}

}  // namespace longspan
