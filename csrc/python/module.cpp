// The Python module longspan._csrc.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <atomic>
#include <chrono>
#include <string>

#if __has_include(<malloc.h>)
#include <malloc.h>
#endif

#include "../isa.h"
#include "../threads.h"
#include "panels.h"
#include "poll.h"
#include "program.h"
#include "quantize.h"
#include "scores.h"
#include "stream.h"

namespace longspan {

namespace {

std::string how_products_run(const std::string& isa, const std::string& format) {
  return kernels_of(isa).how(format_of(format));
}

double peak_gflops(const std::string& isa, int threads, const std::string& format) {
  struct Context {
    const Kernels& kernels;
    Format format;
    std::atomic<long> operations{0};
  } context{kernels_of(isa), format_of(format)};
  const WithoutGil nogil;
  const auto run = [](void* pointer, int) {
    Context& c = *static_cast<Context*>(pointer);
    c.operations += static_cast<long>(c.kernels.peak(c.format, 10'000'000));
  };
  run_on_threads(threads, run, &context);  // warm the pool and the clocks
  context.operations = 0;
  const auto start = std::chrono::steady_clock::now();
  run_on_threads(threads, run, &context);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  return static_cast<double>(context.operations) / seconds.count() / 1e9;
}

// Gives what was freed back to the system. glibc would keep it: it takes large arrays from its heaps once it has seen some
// of their size freed, and these heaps then grow with every slice of a long stream.
void trim_memory() {
#ifdef __GLIBC__
  py::gil_scoped_release nogil;
  malloc_trim(0);
#endif
}

}  // namespace

PYBIND11_MODULE(_csrc, module) {
  module.doc() = "Longspan's CPU executor.";
  module.def("tiers", &supported_tiers, "The instruction tiers that this machine supports, lowest first.");
  module.def("peak_gflops", &peak_gflops, py::arg("isa"), py::arg("threads"), py::arg("format") = "float32",
             "Products on registers alone, in 1e9 operations a second: the ceiling of a tier and format on this machine.");
  module.def("how_products_run", &how_products_run, py::arg("isa"), py::arg("format"),
             "How a tier multiplies with weights of a format, in words.");
  module.def(
      "int8_attention_is_faster", [](const std::string& isa) { return kernels_of(isa).int8_attention_is_faster; }, py::arg("isa"),
      "Whether a tier is faster at attention over bytes than over bfloat16.");
  add_quantize(module);
  add_scores(module);
  add_weight_stream(module);
  add_program(module);
  module.def("trim_memory", &trim_memory, "Gives freed memory back to the system, where the C library can.");
}

}  // namespace longspan
