// The Python module longspan._csrc: turns Python objects into the plain structs of program.h and executor.h, and checks
// everything that a kernel would otherwise trust.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <new>
#include <stdexcept>

#include "executor.h"
#include "isa.h"
#include "program.h"
#include "threads.h"

namespace py = pybind11;

namespace longspan {

namespace {

using Ints = py::array_t<int64_t, py::array::c_style>;
using Ids = py::array_t<int32_t, py::array::c_style>;
using Floats = py::array_t<float, py::array::c_style>;

[[noreturn]] void reject(const std::string& message) { throw std::invalid_argument(message); }

template <class Enum>
Enum one_of(const std::string& name, std::initializer_list<std::pair<const char*, Enum>> known) {
  for (const auto& [candidate, value] : known)
    if (name == candidate) return value;
  reject("unknown name '" + name + "'");
}

Dtype dtype_of(const std::string& name) {
  return one_of<Dtype>(name, {{"F32", Dtype::float32}, {"F16", Dtype::float16}, {"BF16", Dtype::bfloat16}});
}

Activation activation_of(const py::dict& fields) {
  return one_of<Activation>(fields["activation"].cast<std::string>(),
                            {{"identity", Activation::identity},
                             {"gelu", Activation::gelu},
                             {"gelu_tanh", Activation::gelu_tanh},
                             {"relu", Activation::relu},
                             {"silu", Activation::silu},
                             {"tanh", Activation::tanh}});
}

// --- programs -------------------------------------------------------------------------------------------------------

// Reads one instruction's fields. Weights arrive as lists of (array, dtype) parts; buffers as indices.
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

  int buffer(const char* name) const {
    const int index = fields_[name].cast<int>();
    if (index < 0 || index >= static_cast<int>(program_.buffers.size())) reject(std::string("no such buffer: ") + name);
    return index;
  }
  int optional_buffer(const char* name) const { return given(name) ? buffer(name) : kNoBuffer; }

  const float* vector(const char* name, long size) {
    if (!given(name)) return nullptr;
    const auto parts = source(name, 1, 0);
    check(name, rows(parts), size);
    return pack_vector(program_, parts);
  }

  Panels panels(const char* weight, const char* bias, long columns, long k) {
    const auto parts = source(weight, 2, k);
    check(weight, rows(parts), columns);
    return pack_panels(program_, parts, k, vector(bias, columns));
  }

  Table table(const char* name, long width) {
    if (!given(name)) return {nullptr, Dtype::float32, 0, width};
    const auto parts = source(name, 2, width);
    if (parts.size() != 1) reject(std::string(name) + ": a table has one part");
    kept_.push_back(fields_[name]);  // rows are read from the array itself, for as long as the program lives
    return {parts[0].data, parts[0].dtype, parts[0].rows, width};
  }

 private:
  static long rows(const std::vector<SourcePart>& parts) {
    long total = 0;
    for (const auto& part : parts) total += part.rows;
    return total;
  }

  static void check(const char* name, long found, long expected) {
    if (found != expected)
      reject(std::string(name) + " has " + std::to_string(found) + " rows, expected " + std::to_string(expected));
  }

  std::vector<SourcePart> source(const char* name, int dimensions, long columns) {
    std::vector<SourcePart> parts;
    for (const auto& item : fields_[name].cast<py::list>()) {
      const auto pair = item.cast<std::pair<py::array, std::string>>();
      const Dtype dtype = dtype_of(pair.second);
      const py::array& array = pair.first;
      const long itemsize = dtype == Dtype::float32 ? 4 : 2;
      if (array.ndim() != dimensions || array.itemsize() != itemsize || !(array.flags() & py::array::c_style) ||
          (dimensions == 2 && array.shape(1) != columns) || reinterpret_cast<uintptr_t>(array.data()) % itemsize)
        reject(std::string(name) + " is not a C-contiguous, aligned " + pair.second + " array of the expected shape");
      parts.push_back({array.data(), dtype, static_cast<long>(array.shape(0))});
    }
    return parts;
  }

  Program& program_;
  std::vector<py::object>& kept_;
  const py::dict& fields_;
};

struct Heads {
  long heads, kv_heads, head_size;
};

Heads heads_of(const Fields& fields) {
  const Heads h{fields.integer("heads"), fields.integer("kv_heads"), fields.integer("head_size")};
  if (h.heads < 1 || h.kv_heads < 1 || h.heads % h.kv_heads) reject("heads must be a multiple of kv_heads");
  if (h.head_size < 8 || h.head_size > 512 || h.head_size % 8) reject("head_size must be a multiple of 8 from 8 to 512");
  return h;
}

Instruction read_instruction(const Program& program, const std::string& op, Fields& fields) {
  const auto width = [&](int buffer) { return program.width(buffer); };
  if (op == "embed") {
    const int out = fields.buffer("out");
    return Embed{out, fields.table("tokens", width(out)), fields.table("positions", width(out)),
                 fields.table("types", width(out)), fields.integer("position_offset")};
  }
  if (op == "norm") {
    const int x = fields.buffer("x"), out = fields.buffer("out");
    return Norm{x, out, fields.vector("weight", width(x)), fields.vector("bias", width(x)), fields.number("eps")};
  }
  if (op == "linear") {
    const int x = fields.buffer("x"), out = fields.buffer("out");
    return Linear{x, out, fields.optional_buffer("residual"), fields.panels("weight", "bias", width(out), width(x)),
                  activation_of(fields.dict())};
  }
  if (op == "qkv") {
    const int x = fields.buffer("x");
    const Heads h = heads_of(fields);
    const long columns = (h.heads + 2 * h.kv_heads) * h.head_size;
    return Qkv{x, fields.buffer("q"), fields.buffer("k"), fields.buffer("v"),
               fields.panels("weight", "bias", columns, width(x)), h.heads, h.kv_heads, h.head_size};
  }
  if (op == "attention") {
    const Heads h = heads_of(fields);
    return Attention{fields.buffer("q"), fields.buffer("k"), fields.buffer("v"), fields.buffer("out"),
                     h.heads, h.kv_heads, h.head_size, fields.number("scale")};
  }
  if (op == "mlp") {
    const int x = fields.buffer("x"), out = fields.buffer("out"), hidden = fields.buffer("hidden");
    return Mlp{x, out, hidden, fields.optional_buffer("residual"),
               fields.panels("up", "up_bias", width(hidden), width(x)),
               fields.panels("down", "down_bias", width(out), width(hidden)), activation_of(fields.dict())};
  }
  if (op == "pool")
    return Pool{fields.buffer("x"), fields.buffer("out"),
                one_of<PoolKind>(fields.text("kind"), {{"sum", PoolKind::sum}, {"maximum", PoolKind::maximum}}),
                static_cast<int>(fields.integer("index"))};
  if (op == "combine")
    return Combine{fields.buffer("partials"), fields.buffer("out"),
                   one_of<CombineKind>(fields.text("kind"), {{"mean", CombineKind::mean},
                                                             {"mean_sqrt_len", CombineKind::mean_sqrt_len},
                                                             {"maximum", CombineKind::maximum}}),
                   static_cast<int>(fields.integer("index")), fields.integer("column")};
  if (op == "normalize") return Normalize{fields.buffer("x"), fields.buffer("out"), fields.flag("unit")};
  reject("unknown instruction '" + op + "'");
}

// --- batches --------------------------------------------------------------------------------------------------------

struct PartialArrays {
  Ints starts, ends;
  Floats first_weight, weight_step;
};

void check_offsets(const Ints& offsets, const char* name, long last) {
  const auto at = offsets.unchecked<1>();
  if (at.shape(0) < 1 || at(0) != 0 || at(at.shape(0) - 1) != last) reject(std::string(name) + " must run from 0 to the end");
  for (py::ssize_t i = 1; i < at.shape(0); i++)
    if (at(i) < at(i - 1)) reject(std::string(name) + " runs backwards");
}

Partials view_partials(const PartialArrays& arrays, float* data) {
  const long count = static_cast<long>(arrays.starts.size());
  if (arrays.ends.size() != count || arrays.first_weight.size() != count || arrays.weight_step.size() != count)
    reject("the arrays of the partials differ in length");
  return {arrays.starts.data(), arrays.ends.data(), arrays.first_weight.data(), arrays.weight_step.data(), count, data};
}

// Each partial is a non-empty run of rows inside one segment.
void check_partials(const Partials& partials, const Ints& cu_seqlens) {
  const int64_t* begin = cu_seqlens.data();
  const int64_t* end = begin + cu_seqlens.size();
  for (long p = 0; p < partials.count; p++) {
    const int64_t* next = std::upper_bound(begin, end, partials.starts[p]);
    if (next == begin || next == end || partials.ends[p] <= partials.starts[p] || partials.ends[p] > *next)
      reject("partial " + std::to_string(p) + " is not a run of rows inside one segment");
  }
}

void check_rows(const int32_t* rows, long count, long offset, const Table& table, const char* name) {
  if (!table.present()) return;
  for (long i = 0; i < count; i++)
    if (rows[i] + offset < 0 || rows[i] + offset >= table.rows)
      reject(std::string(name) + " " + std::to_string(rows[i]) + " is outside the table of " + std::to_string(table.rows));
}

void check_order(const Ints& order, long packs) {
  std::vector<bool> seen(packs);
  if (order.size() != packs) reject("pack_order has one entry per pack");
  for (long i = 0; i < packs; i++) {
    const int64_t pack = order.data()[i];
    if (pack < 0 || pack >= packs || seen[pack]) reject("pack_order is not a permutation of the packs");
    seen[pack] = true;
  }
}

struct LayoutArrays {
  Ints offsets;
  long bytes;
  long rows;
};

Layout view_layout(const LayoutArrays& arrays, size_t buffers) {
  if (static_cast<size_t>(arrays.offsets.size()) != buffers) reject("a layout has one offset per buffer");
  return {arrays.offsets.data(), arrays.bytes, arrays.rows};
}

// Calls back into Python at most ten times a second, and looks for Ctrl-C.
class PythonPoll {
 public:
  explicit PythonPoll(py::object callback) : callback_(std::move(callback)) {}

  static bool ask(void* self, long tokens) { return static_cast<PythonPoll*>(self)->ask_now(tokens); }

  void raise_pending() {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  bool ask_now(long tokens) {
    const auto now = std::chrono::steady_clock::now();
    if (now - last_ < std::chrono::milliseconds(100)) return false;
    last_ = now;
    py::gil_scoped_acquire gil;
    try {
      if (PyErr_CheckSignals() != 0) throw py::error_already_set();
      if (!callback_.is_none()) callback_(tokens);
      return false;
    } catch (...) {
      error_ = std::current_exception();
      return true;
    }
  }

  py::object callback_;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
  std::exception_ptr error_;
};

// A mutex that a forked child may take although the parent held it.
class ForkSafeMutex {
 public:
  void lock() {
    if (generation_ != fork_generation()) {
      new (&mutex_) std::mutex;
      generation_ = fork_generation();
    }
    mutex_.lock();
  }
  void unlock() { mutex_.unlock(); }

 private:
  std::mutex mutex_;
  uint64_t generation_ = fork_generation();
};

class PyProgram {
 public:
  PyProgram(const std::vector<std::pair<std::string, long>>& buffers,
            const std::vector<std::pair<std::string, py::dict>>& instructions, int output, const std::string& isa)
      : executor_(program_) {
    program_.kernels = &kernels_of(isa);
    program_.output = output;
    for (const auto& [rows, width] : buffers)
      program_.buffers.push_back({one_of<Rows>(rows, {{"T", Rows::tokens}, {"tile", Rows::tile}, {"P", Rows::partials}, {"N", Rows::vectors}}), width});
    for (const auto& [op, dict] : instructions) {
      Fields fields(program_, kept_, dict);
      try {
        program_.instructions.push_back(read_instruction(program_, op, fields));
      } catch (const std::invalid_argument& error) {
        reject(op + ": " + error.what());
      }
    }
  }

  std::string isa() const { return program_.kernels->name; }

  size_t weight_bytes() const {
    size_t bytes = 0;
    for (const Mapping& mapping : program_.storage) bytes += mapping.bytes();
    return bytes;
  }

  std::vector<Floats> run_body(const Ids& ids, const Ids& positions, const Ints& cu_seqlens,
                               const std::vector<PartialArrays>& partials, const Ints& pack_segments, const Ints& pack_order,
                               long shared_packs, const LayoutArrays& pack, const LayoutArrays& shared, const LayoutArrays& tile, int threads,
                               py::object poll) {
    const long tokens = static_cast<long>(ids.size()), segments = static_cast<long>(cu_seqlens.size()) - 1;
    if (positions.size() != tokens) reject("ids and positions differ in length");
    if (threads < 1) reject("threads must be at least 1");
    check_offsets(cu_seqlens, "cu_seqlens", tokens);
    check_offsets(pack_segments, "pack_segments", segments);
    Batch batch{ids.data(), positions.data(), cu_seqlens.data(), segments, pack_segments.data(),
                pack_order.data(), static_cast<long>(pack_segments.size()) - 1, shared_packs, {}};
    check_order(pack_order, batch.packs);
    const size_t buffers = program_.buffers.size();
    const Layouts layouts{view_layout(pack, buffers), view_layout(shared, buffers), view_layout(tile, buffers)};
    check_embedding(batch, tokens);
    check_packs(batch, layouts);
    std::vector<Floats> results = make_results(partials, cu_seqlens, batch);
    PythonPoll python(std::move(poll));
    bool finished;
    {
      py::gil_scoped_release nogil;
      std::lock_guard<ForkSafeMutex> turn(mutex_);
      finished = executor_.run_body(batch, layouts, threads, {PythonPoll::ask, &python});
    }
    if (!finished) python.raise_pending();
    return results;
  }

  Floats run_tail(const std::vector<Floats>& data, const std::vector<PartialArrays>& partials,
                  const std::vector<Ints>& cu_vectors, const LayoutArrays& layout, int threads) {
    if (program_.output == kNoBuffer) reject("this program is not a tail");
    if (data.size() != partials.size() || cu_vectors.size() != partials.size() || partials.empty())
      reject("a tail needs one array of partials per pooling");
    std::vector<Partials> views;
    std::vector<const int64_t*> offsets;
    const long count = static_cast<long>(cu_vectors[0].size()) - 1;
    for (size_t i = 0; i < partials.size(); i++) {
      views.push_back(view_partials(partials[i], const_cast<float*>(data[i].data())));
      check_offsets(cu_vectors[i], "cu_vectors", views.back().count);
      if (cu_vectors[i].size() - 1 != count) reject("the poolings differ in their number of vectors");
      offsets.push_back(cu_vectors[i].data());
    }
    check_combines(data, views);
    Floats vectors({count, program_.width(program_.output)});
    const Layout view = view_layout(layout, program_.buffers.size());
    float* out = vectors.mutable_data();
    py::gil_scoped_release nogil;
    std::lock_guard<ForkSafeMutex> turn(mutex_);
    executor_.run_tail(views, offsets, count, view, threads, out);
    return vectors;
  }

 private:
  void check_embedding(const Batch& batch, long tokens) const {
    for (const Instruction& instruction : program_.instructions)
      if (const Embed* op = std::get_if<Embed>(&instruction)) {
        check_rows(batch.ids, tokens, 0, op->tokens, "token id");
        check_rows(batch.positions, tokens, op->position_offset, op->positions, "position");
      }
  }

  static void check_packs(const Batch& batch, const Layouts& layouts) {
    if (batch.shared_packs < 0 || batch.shared_packs > batch.packs) reject("shared_packs is out of range");
    for (long turn = 0; turn < batch.packs; turn++) {
      const long pack = batch.pack_order[turn];
      const long tokens = batch.cu_seqlens[batch.pack_segments[pack + 1]] - batch.cu_seqlens[batch.pack_segments[pack]];
      const Layout& layout = turn < batch.shared_packs ? layouts.shared : layouts.pack;
      if (tokens > layout.rows) reject("a pack is larger than the arena was laid out for");
    }
  }

  std::vector<Floats> make_results(const std::vector<PartialArrays>& partials, const Ints& cu_seqlens, Batch& batch) const {
    std::vector<Floats> results;
    for (const Instruction& instruction : program_.instructions)
      if (const Pool* op = std::get_if<Pool>(&instruction)) {
        const size_t index = results.size();
        if (op->index != static_cast<int>(index) || index >= partials.size()) reject("pool needs its own partials");
        results.emplace_back(std::vector<py::ssize_t>{partials[index].starts.size(), program_.width(op->x)});
        batch.partials.push_back(view_partials(partials[index], results.back().mutable_data()));
        check_partials(batch.partials.back(), cu_seqlens);
      }
    if (results.size() != partials.size()) reject("there are more partials than pool instructions");
    return results;
  }

  void check_combines(const std::vector<Floats>& data, const std::vector<Partials>& views) const {
    for (const Instruction& instruction : program_.instructions)
      if (const Combine* op = std::get_if<Combine>(&instruction)) {
        if (op->index < 0 || op->index >= static_cast<int>(data.size())) reject("combine: no such partials");
        const Floats& array = data[op->index];
        if (array.ndim() != 2 || array.shape(0) != views[op->index].count || array.shape(1) != program_.width(op->partials))
          reject("combine: the partials have the wrong shape");
      }
  }

  Program program_;
  Executor executor_;
  ForkSafeMutex mutex_;
  std::vector<py::object> kept_;
};

double peak_gflops(const std::string& isa, int threads) {
  struct Context {
    const Kernels& kernels;
    std::atomic<long> operations{0};
  } context{kernels_of(isa)};
  py::gil_scoped_release nogil;
  const auto run = [](void* pointer, int) {
    Context& c = *static_cast<Context*>(pointer);
    c.operations += static_cast<long>(c.kernels.peak(10'000'000));
  };
  run_on_threads(threads, run, &context);  // warm the pool and the clocks
  context.operations = 0;
  const auto start = std::chrono::steady_clock::now();
  run_on_threads(threads, run, &context);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  return static_cast<double>(context.operations) / seconds.count() / 1e9;
}

PartialArrays partials_from(const py::tuple& arrays) {
  return {arrays[0].cast<Ints>(), arrays[1].cast<Ints>(), arrays[2].cast<Floats>(), arrays[3].cast<Floats>()};
}

std::vector<PartialArrays> all_partials(const py::list& list) {
  std::vector<PartialArrays> all;
  for (const auto& item : list) all.push_back(partials_from(item.cast<py::tuple>()));
  return all;
}

LayoutArrays layout_from(const py::tuple& layout) {
  return {layout[0].cast<Ints>(), layout[1].cast<long>(), layout[2].cast<long>()};
}

}  // namespace

PYBIND11_MODULE(_csrc, module) {
  module.doc() = "Longspan's CPU executor.";
  module.def("tiers", &supported_tiers, "The instruction tiers that this machine supports, lowest first.");
  module.def("peak_gflops", &peak_gflops, py::arg("isa"), py::arg("threads"),
             "Float32 multiply-adds on registers alone, in GFLOP/s: the ceiling of a tier on this machine.");
  py::class_<PyProgram>(module, "Program")
      .def(py::init<const std::vector<std::pair<std::string, long>>&, const std::vector<std::pair<std::string, py::dict>>&,
                    int, const std::string&>(),
           py::arg("buffers"), py::arg("instructions"), py::arg("output"), py::arg("isa"))
      .def_property_readonly("isa", &PyProgram::isa)
      .def_property_readonly("weight_bytes", &PyProgram::weight_bytes)
      .def(
          "run_body",
          [](PyProgram& self, const Ids& ids, const Ids& positions, const Ints& cu_seqlens, const py::list& partials,
             const Ints& pack_segments, const Ints& pack_order, long shared_packs, const py::tuple& pack,
             const py::tuple& shared, const py::tuple& tile, int threads, py::object poll) {
            return self.run_body(ids, positions, cu_seqlens, all_partials(partials), pack_segments, pack_order, shared_packs,
                                 layout_from(pack), layout_from(shared), layout_from(tile), threads, std::move(poll));
          },
          py::arg("ids"), py::arg("positions"), py::arg("cu_seqlens"), py::arg("partials"), py::arg("pack_segments"),
          py::arg("pack_order"), py::arg("shared_packs"), py::arg("pack"), py::arg("shared"), py::arg("tile"), py::arg("threads"), py::arg("poll"))
      .def(
          "run_tail",
          [](PyProgram& self, const std::vector<Floats>& data, const py::list& partials, const std::vector<Ints>& cu_vectors,
             const py::tuple& layout, int threads) {
            return self.run_tail(data, all_partials(partials), cu_vectors, layout_from(layout), threads);
          },
          py::arg("data"), py::arg("partials"), py::arg("cu_vectors"), py::arg("layout"), py::arg("threads"));
}

}  // namespace longspan
