#include "quantize.h"

#include <pybind11/numpy.h>

#include <string>

#include "../isa.h"
#include "../threads.h"
#include "batch.h"
#include "poll.h"
#include "reject.h"

namespace longspan {

namespace {

py::array_t<uint8_t> quantize(const Floats& vectors, const std::string& precision, const Floats& low, const Floats& step,
                              const std::string& isa) {
  struct Kind {
    bool bits, is_signed;
  };
  const Kind kind = one_of<Kind>(
      precision, {{"int8", {false, true}}, {"uint8", {false, false}}, {"binary", {true, true}}, {"ubinary", {true, false}}});
  if (vectors.ndim() != 2) reject("vectors must be a matrix");
  const long rows = vectors.shape(0), width = vectors.shape(1);
  if (!kind.bits && (low.size() != width || step.size() != width))
    reject("the ranges have another dimension than the vectors");
  const Kernels& kernels = kernels_of(isa);
  py::array_t<uint8_t> out({rows, kind.bits ? divide_up(width, 8) : width});
  const float *x = vectors.data(), *least = low.data(), *level = step.data();
  uint8_t* to = out.mutable_data();
  const uint8_t flip = kind.is_signed ? 0x80 : 0;
  const WithoutGil nogil;
  const FloatMode mode;
  if (kind.bits) kernels.quantize_bits(x, rows, width, flip, to);
  else kernels.quantize_bytes(x, rows, width, least, level, flip, to);
  return out;
}

}  // namespace

void add_quantize(py::module_& module) {
  module.def("quantize", &quantize, py::arg("vectors"), py::arg("precision"), py::arg("low"), py::arg("step"), py::arg("isa"),
             "Vectors [n, d] as bytes: [n, d] by ranges, or [n, ceil(d / 8)] as bits. The caller views them as int8 or uint8.");
}

}  // namespace longspan
