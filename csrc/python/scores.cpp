#include "scores.h"

#include <pybind11/numpy.h>

#include <string>

#include "../isa.h"
#include "../scores.h"
#include "batch.h"
#include "poll.h"
#include "reject.h"

namespace longspan {

namespace py = pybind11;

namespace {


struct Sizes {
  long queries, rows, width;
};

Sizes sizes_of(const py::array& queries, const py::array& vectors, int threads) {
  if (queries.ndim() != 2 || vectors.ndim() != 2) reject("queries and vectors must be matrices");
  if (queries.shape(1) != vectors.shape(1)) reject("queries and vectors differ in width");
  if (queries.shape(1) < 1) reject("vectors must have components");
  if (threads < 1) reject("threads must be at least 1");
  return {static_cast<long>(queries.shape(0)), static_cast<long>(vectors.shape(0)), static_cast<long>(queries.shape(1))};
}

Floats all_pairs(const Floats& queries, const StoredVectors& vectors, long count, const std::string& name, int threads,
                 const std::string& isa) {
  const ScoreKind kind = one_of<ScoreKind>(name, {{"dot", ScoreKind::dot},
                                                  {"cosine", ScoreKind::cosine},
                                                  {"euclidean", ScoreKind::euclidean},
                                                  {"manhattan", ScoreKind::manhattan}});
  const Kernels& kernels = kernels_of(isa);
  Floats out({count, vectors.rows});
  const float* from = queries.data();
  float* to = out.mutable_data();
  const WithoutGil nogil;
  scores(kernels, from, count, vectors, kind, threads, to);
  return out;
}

Floats scores_of_floats(const Floats& queries, const Floats& vectors, const std::string& name, int threads,
                        const std::string& isa) {
  const Sizes sizes = sizes_of(queries, vectors, threads);
  return all_pairs(queries, {vectors.data(), {}, sizes.rows, sizes.width}, sizes.queries, name, threads, isa);
}

Floats scores_of_codes(const Floats& queries, const Bytes& codes, bool is_signed, const Floats& low, const Floats& step,
                       const std::string& name, int threads, const std::string& isa) {
  const Sizes sizes = sizes_of(queries, codes, threads);
  if (low.size() != sizes.width || step.size() != sizes.width) reject("the ranges have another width than the codes");
  const CodesArgs args{codes.data(), sizes.width, static_cast<uint8_t>(is_signed ? 0x80 : 0), low.data(), step.data()};
  return all_pairs(queries, {nullptr, args, sizes.rows, sizes.width}, sizes.queries, name, threads, isa);
}

Floats hamming(const Bytes& queries, const Bytes& vectors, int threads, const std::string& isa) {
  const Sizes sizes = sizes_of(queries, vectors, threads);
  const Kernels& kernels = kernels_of(isa);
  Floats out({sizes.queries, sizes.rows});
  const uint8_t *from = queries.data(), *beside = vectors.data();
  float* to = out.mutable_data();
  const WithoutGil nogil;
  bit_scores(kernels, from, sizes.queries, beside, sizes.rows, sizes.width, threads, to);
  return out;
}

}  // namespace

void add_scores(py::module_& module) {
  module.def("scores", &scores_of_floats, py::arg("queries"), py::arg("vectors"), py::arg("name"), py::arg("threads"),
             py::arg("isa"), "Scores [q, n] of queries [q, d] with vectors [n, d].");
  module.def("scores_of_codes", &scores_of_codes, py::arg("queries"), py::arg("codes"), py::arg("is_signed"), py::arg("low"),
             py::arg("step"), py::arg("name"), py::arg("threads"), py::arg("isa"),
             "Scores [q, n] of queries [q, d] with vectors of a byte a component [n, d].");
  module.def("hamming", &hamming, py::arg("queries"), py::arg("vectors"), py::arg("threads"), py::arg("isa"),
             "Minus the number of differing bits, [q, n], between packed bits [q, b] and [n, b].");
}

}  // namespace longspan
