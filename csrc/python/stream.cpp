#include "stream.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <utility>
#include <vector>

#include "../weight_stream.h"
#include "reject.h"

namespace py = pybind11;

namespace longspan {

namespace {

struct StreamError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

std::unique_ptr<WeightStream> make_stream(int file, const std::vector<std::vector<std::pair<uint64_t, size_t>>>& stages) {
  std::vector<std::vector<WeightStream::Span>> spans;
  for (const auto& stage : stages) {
    spans.emplace_back();
    for (const auto& [offset, bytes] : stage) spans.back().push_back({offset, bytes});
  }
  return std::make_unique<WeightStream>(file, std::move(spans));
}

// Where a span will lie, as bytes; reading them before they are there gives zeros.
py::array view(const py::object& self, size_t stage, size_t span) {
  const auto& stream = self.cast<const WeightStream&>();
  if (stage >= stream.stages() || span >= stream.spans(stage)) reject("there is no such span");
  const auto bytes = static_cast<py::ssize_t>(stream.span(stage, span).bytes);
  py::array array(py::dtype::of<uint8_t>(), {bytes}, stream.data(stage, span), self);
  array.attr("setflags")(py::arg("write") = false);
  return array;
}

}  // namespace

void raise_stream_error(const std::string& what) { throw StreamError(what); }

void raise_error_of(const WeightStream& stream) {
  if (!stream.error().empty()) raise_stream_error(stream.error());
}

void add_weight_stream(py::module_& module) {
  py::register_exception<StreamError>(module, "StreamError", PyExc_OSError);
  py::class_<WeightStream>(module, "WeightStream")
      .def(py::init(&make_stream), py::arg("file"), py::arg("stages"))
      .def(
          "view", [](const py::object& self, size_t stage, size_t span) { return view(self, stage, span); }, py::arg("stage"),
          py::arg("span"))
      .def("bytes", [](const WeightStream& stream, size_t stage) {
             if (stage >= stream.stages()) reject("there is no such stage");
             return stream.bytes(stage);
           }, py::arg("stage"))
      .def_property_readonly("resident_bytes", &WeightStream::resident_bytes);
}

}  // namespace longspan
