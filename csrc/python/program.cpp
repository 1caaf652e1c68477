#include "program.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <iterator>
#include <map>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <utility>

#include "../executor.h"
#include "../isa.h"
#include "../program.h"
#include "../threads.h"
#include "batch.h"
#include "checks.h"
#include "instructions.h"
#include "panels.h"
#include "poll.h"
#include "reject.h"
#include "stream.h"

namespace longspan {

namespace {

// A signal handler or a progress bar runs inside a run and must not start another: it would wait for itself.
class OneAtATime {
 public:
  // `mutex` is the program's.
  explicit OneAtATime(const ForkSafeMutex& mutex) {
    if (busy()) refuse();
    busy_ = fork_generation() + 1;
    held_ = &mutex;
  }
  ~OneAtATime() { busy_ = 0; }

  // For what may be done inside a run, but not to the program that runs.
  static void check_is_outside(const ForkSafeMutex& mutex) {
    if (busy() && held_ == &mutex) refuse();
  }

 private:
  static bool busy() { return busy_ == fork_generation() + 1; }
  [[noreturn]] static void refuse() {
    throw std::runtime_error("an encoder was called from inside a running call, by a signal handler or a callback");
  }

  static thread_local uint64_t busy_;  // 1 + the generation of the process that runs; 0: none does
  static thread_local const ForkSafeMutex* held_;
};

thread_local uint64_t OneAtATime::busy_ = 0;
thread_local const ForkSafeMutex* OneAtATime::held_ = nullptr;

using Turn = std::unique_lock<ForkSafeMutex>;

// To change a program: its run is waited for, without the GIL, which the run's poll wants. Then both are held.
Turn turn_of(ForkSafeMutex& mutex) {
  OneAtATime::check_is_outside(mutex);
  const WithoutGil nogil;
  return Turn(mutex);
}

constexpr long kMostColumns = 1L << 32;  // of a buffer

class PyProgram {
 public:
  PyProgram(const std::vector<std::tuple<std::string, long, std::string>>& buffers, int output, const std::string& isa)
      : executor_(program_) {
    program_.kernels = &kernels_of(isa);
    program_.output = output;
    for (const auto& [rows, width, dtype] : buffers) {
      const Rows kind = one_of<Rows>(
          rows, {{"T", Rows::tokens}, {"tile", Rows::tile}, {"P", Rows::partials}, {"N", Rows::vectors}});
      const bool bf16 = one_of<bool>(dtype, {{"float32", false}, {"bfloat16", true}});
      if (width < 1 || width > kMostColumns) reject("a buffer must have columns, but not so many");
      if (bf16 && (kind == Rows::partials || kind == Rows::vectors)) reject("partials and vectors are float32");
      program_.buffers.push_back({kind, width, bf16});
    }
    if (output < kNoBuffer || output >= static_cast<int>(buffers.size())) reject("no such buffer: output");
    if (program_.is_tail() && program_.buffers[output].rows != Rows::vectors) reject("output is no buffer of vectors");
  }

  // Appends an instruction and packs its weights, which the caller may give up afterwards.
  void add(const std::string& op, const py::dict& fields) {
    const Turn turn = turn_of(mutex_);
    const long stage = fields["stage"].cast<long>();
    if (!program_.stages.empty() && stage < program_.stages.back()) reject("stages run backwards");
    const FloatMode mode;
    program_.instructions.push_back(read_instruction(program_, kept_, op, fields));
    program_.stages.push_back(stage);
  }

  // Moves the instructions of another program over the same buffers, with their weights, behind these.
  void take(PyProgram& other) {
    if (&other == this) reject("the other program is not of this one's kind");
    const bool in_order = std::less<>()(this, &other);  // two that take each other do not wait for each other
    const Turn first = turn_of((in_order ? *this : other).mutex_), second = turn_of((in_order ? other : *this).mutex_);
    const Program& given = other.program_;
    const bool after = program_.stages.empty() || given.stages.empty() || program_.stages.back() <= given.stages.front();
    if (given.kernels != program_.kernels || given.output != program_.output || given.buffers != program_.buffers)
      reject("the other program is not of this one's kind");
    if (!after) reject("stages run backwards");
    if (given.tasks && program_.tasks && given.tasks != program_.tasks) reject("the other program is for another number of tasks");
    kept_.reserve(kept_.size() + other.kept_.size());
    program_.take(std::move(other.program_));
    std::move(other.kept_.begin(), other.kept_.end(), std::back_inserter(kept_));
    other.kept_.clear();
  }

  // Says that rows of an array are to be read from a file, where it begins at an offset.
  void add_table_file(const py::array& array, int file, long offset) {
    const Turn turn = turn_of(mutex_);
    kept_.push_back(array);
    program_.table_files.emplace_back(array.data(), static_cast<size_t>(array.nbytes()), file, offset);
  }

  // What instruction number `index` multiplies with, as arrays; see `longspan::panels_of`.
  py::dict panels_of(size_t index, const py::object& self) const {
    if (index >= program_.instructions.size()) reject("there is no instruction " + std::to_string(index));
    return longspan::panels_of(program_.instructions[index], self);
  }

  std::string isa() const { return program_.kernels->name; }

  size_t weight_bytes() const {
    size_t bytes = 0;
    for (const Mapping& mapping : program_.storage) bytes += mapping.bytes();
    return bytes;
  }

  // From now on threads note how far the inputs of products reach in the packs that they run alone.
  void watch() {
    const Turn turn = turn_of(mutex_);
    watching_ = true;
  }

  // For each instruction, by the name of the weight, what was seen: [experts, k], or [1, k]; zero where nothing was.
  std::vector<std::map<std::string, Floats>> watched() {
    const Turn turn = turn_of(mutex_);
    std::vector<std::map<std::string, Floats>> found;
    for (const Instruction& instruction : program_.instructions) {
      auto& own = found.emplace_back();
      each_matrix(instruction, [&](const char* field, const std::vector<Panels>& matrices) {
        Floats seen({static_cast<py::ssize_t>(matrices.size()), static_cast<py::ssize_t>(matrices[0].k)});
        std::fill_n(seen.mutable_data(), seen.size(), 0.0f);
        for (size_t i = 0; i < matrices.size(); i++)
          for (const Watch& watch : watches_) watch.raise(matrices[i], seen.mutable_data(i, 0));
        own.emplace(field, seen);
      });
    }
    return found;
  }

  // Whether attention multiplies bytes from now on, where it does not turn queries and keys itself.
  void attend_in_int8(bool int8) {
    const Turn turn = turn_of(mutex_);
    for (Instruction& instruction : program_.instructions)
      if (auto* op = std::get_if<Attention>(&instruction)) op->int8 = int8 && op->rope == kNone;
  }

  size_t arena_bytes() const { return executor_.arena_bytes(); }

  void drop_arena() {
    const OneAtATime once(mutex_);
    const WithoutGil nogil;
    const Turn turn(mutex_);
    executor_.drop_arena();
  }

  size_t needed_bytes(long packs, long shared_packs, long pack, long shared, long tile, long tile_rows, int threads, size_t carried) const {
    if (packs < shared_packs || shared_packs < 0 || threads < 1) reject("there are no such packs");
    const Layouts layouts{{nullptr, pack, 0}, {nullptr, shared, 0}, {nullptr, tile, tile_rows}};
    return executor_.divide(packs, shared_packs, layouts, threads, carried).bytes;
  }

  std::vector<Floats> run_body(const BatchArrays& arrays, const PackArrays& packs, const BodyLayoutArrays& places, int threads,
                               py::object poll, const std::optional<StagingArrays>& staged, WeightStream* weights) {
    if (program_.is_tail()) reject("this program is a tail");
    if (program_.instructions.empty()) reject("there is nothing to run");
    if (threads < 1) reject("threads must be at least 1");
    const bool watching = watching_;
    const size_t checked = program_.instructions.size();
    Batch batch = view_batch(arrays, packs, program_);
    std::optional<Staging> staging;
    if (staged) staging.emplace(view_staging(*staged, batch, program_, watching));
    const Layouts layouts = view_layouts(places, batch, program_, staging ? staging->carried : nullptr);
    std::vector<Floats> results = make_results(arrays, batch);
    std::atomic<bool> rows_missing = false;
    batch.rows_missing = &rows_missing;
    PythonPoll python(std::move(poll));
    bool finished;
    const OneAtATime once(mutex_);
    {
      const WithoutGil nogil;
      const Turn turn(mutex_);
      check_unchanged(checked);
      if (watching) prepare_watches(threads);
      finished = (!weights || weights->load([](void* asked) { return PythonPoll::ask(asked, 0); }, &python)) &&
                 executor_.run_body(batch, layouts, threads, {PythonPoll::ask, &python}, watching ? watches_.data() : nullptr,
                                     staging ? &*staging : nullptr);
    }
    if (!finished) {
      python.raise_pending();
      if (weights) raise_error_of(*weights);
      if (staging && staging->stream) raise_error_of(*staging->stream);
    }
    if (rows_missing) raise_stream_error("it ends where rows of embeddings are expected");
    return results;
  }

  Floats run_tail(const std::vector<Floats>& data, const std::vector<PartialArrays>& partials,
                  const std::vector<Ints>& cu_vectors, const LayoutArrays& layout, int threads) {
    if (!program_.is_tail()) reject("this program is not a tail");
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
    check_combines(data, views, program_);
    const size_t checked = program_.instructions.size();
    Floats vectors({count, program_.width(program_.output)});
    const Layout view = view_layout(layout, program_.buffers, Rows::vectors);
    if (threads < 1 || view.rows < 1) reject("threads and rows must be at least 1");
    const OneAtATime once(mutex_);
    float* out = vectors.mutable_data();
    const WithoutGil nogil;
    const Turn turn(mutex_);
    check_unchanged(checked);
    executor_.run_tail(views, offsets, count, view, threads, out);
    return vectors;
  }

 private:
  // A run checks its arguments before it waits for its turn, and others may have theirs in between.
  void check_unchanged(size_t instructions) const {
    if (program_.instructions.size() != instructions) throw std::runtime_error("the program was changed before its run began");
  }

  void prepare_watches(int threads) {
    if (watches_.size() < static_cast<size_t>(threads)) watches_.resize(threads);
    for (Watch& watch : watches_) watch.prepare(program_);
  }

  // Room for what is pooled, which the batch's partials point to.
  std::vector<Floats> make_results(const BatchArrays& arrays, Batch& batch) const {
    std::vector<Floats> results;
    for (const Instruction& instruction : program_.instructions)
      if (const Pool* op = std::get_if<Pool>(&instruction)) {
        const size_t index = results.size();
        if (op->index != static_cast<int>(index) || index >= arrays.partials.size()) reject("pool needs its own partials");
        const PartialArrays& partials = arrays.partials[index];
        results.emplace_back(std::vector<py::ssize_t>{partials.starts.size(), program_.width(op->x)});
        batch.partials.push_back(view_partials(partials, results.back().mutable_data()));
        check_partials(batch.partials.back(), arrays.cu_seqlens);
      }
    if (results.size() != arrays.partials.size()) reject("there are more partials than pool instructions");
    return results;
  }

  Program program_;
  Executor executor_;
  ForkSafeMutex mutex_;
  bool watching_ = false;
  std::vector<Watch> watches_;  // by thread
  std::vector<py::object> kept_;
};

}  // namespace

void add_program(py::module_& module) {
  py::class_<PyProgram>(module, "Program")
      .def(py::init<const std::vector<std::tuple<std::string, long, std::string>>&, int, const std::string&>(), py::arg("buffers"),
           py::arg("output"), py::arg("isa"))
      .def("add", &PyProgram::add, py::arg("op"), py::arg("fields"))
      .def("take", &PyProgram::take, py::arg("other"))
      .def("watch", &PyProgram::watch)
      .def("watched", &PyProgram::watched)
      .def("attend_in_int8", &PyProgram::attend_in_int8, py::arg("int8"))
      .def(
          "panels_of", [](const py::object& self, size_t index) { return self.cast<const PyProgram&>().panels_of(index, self); },
          py::arg("index"))
      .def_property_readonly("isa", &PyProgram::isa)
      .def_property_readonly("weight_bytes", &PyProgram::weight_bytes)
      .def_property_readonly("arena_bytes", &PyProgram::arena_bytes)
      .def("add_table_file", &PyProgram::add_table_file, py::arg("array"), py::arg("file"), py::arg("offset"))
      .def("drop_arena", &PyProgram::drop_arena)
      .def("needed_bytes", &PyProgram::needed_bytes, py::arg("packs"), py::arg("shared_packs"), py::arg("pack"),
           py::arg("shared"), py::arg("tile"), py::arg("tile_rows"), py::arg("threads"), py::arg("carried"))
      .def(
          "run_body",
          [](PyProgram& self, const py::array& ids, const py::array& positions, const py::array& cu_seqlens,
             const py::list& partials, const py::array& pack_segments, const py::array& pack_order, long shared_packs, int task,
             const py::list& ropes, const py::list& q_scales, const py::tuple& pack, const py::tuple& shared,
             const py::tuple& tile, int threads, py::object poll, const std::optional<py::tuple>& staging, WeightStream* weights) {
            const BatchArrays batch{exact<Ids>(ids, "ids"), exact<Ids>(positions, "positions"),
                                    exact<Ints>(cu_seqlens, "cu_seqlens"), all_partials(partials), task, all_ropes(ropes),
                                    all_exact<Floats>(q_scales, "q_scales")};
            const PackArrays packs{exact<Ints>(pack_segments, "pack_segments"), exact<Ints>(pack_order, "pack_order"), shared_packs};
            const BodyLayoutArrays layouts{layout_from(pack), layout_from(shared), layout_from(tile)};
            return self.run_body(batch, packs, layouts, threads, std::move(poll), staging_from(staging), weights);
          },
          py::arg("ids"), py::arg("positions"), py::arg("cu_seqlens"), py::arg("partials"), py::arg("pack_segments"),
          py::arg("pack_order"), py::arg("shared_packs"), py::arg("task"), py::arg("ropes"), py::arg("q_scales"),
          py::arg("pack"), py::arg("shared"), py::arg("tile"), py::arg("threads"), py::arg("poll"), py::arg("staging"),
          py::arg("weights"))
      .def(
          "run_tail",
          [](PyProgram& self, const py::list& data, const py::list& partials, const py::list& cu_vectors, const py::tuple& layout,
             int threads) {
            return self.run_tail(all_exact<Floats>(data, "data"), all_partials(partials), all_exact<Ints>(cu_vectors, "cu_vectors"),
                                 layout_from(layout), threads);
          },
          py::arg("data"), py::arg("partials"), py::arg("cu_vectors"), py::arg("layout"), py::arg("threads"));
}

}  // namespace longspan
