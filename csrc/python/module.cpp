// The Python module longspan._csrc.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>

#if __has_include(<malloc.h>)
#include <malloc.h>
#endif

#include "../executor.h"
#include "../isa.h"
#include "../program.h"
#include "../threads.h"
#include "batch.h"
#include "fields.h"
#include "instructions.h"
#include "panels.h"
#include "poll.h"
#include "quantize.h"
#include "reject.h"
#include "scores.h"
#include "stream.h"

namespace longspan {

namespace {

// A signal handler or a progress bar runs inside a run and must not start another: it would wait for itself.
class OneAtATime {
 public:
  OneAtATime() {
    const uint64_t now = fork_generation() + 1;
    if (busy_ == now) throw std::runtime_error("an encoder was called from inside a running call, by a signal handler or a callback");
    busy_ = now;
  }
  ~OneAtATime() { busy_ = 0; }

 private:
  static thread_local uint64_t busy_;  // 1 + the generation of the process that runs; 0: none does
};

thread_local uint64_t OneAtATime::busy_ = 0;

// How a run goes stage by stage; see Staging.
struct StagingArrays {
  CarriedArrays carried;
  WeightStream& stream;
  long kept;
};

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
    const long stage = fields["stage"].cast<long>();
    if (!program_.stages.empty() && stage < program_.stages.back()) reject("stages run backwards");
    const FloatMode mode;
    program_.instructions.push_back(read_instruction(program_, kept_, op, fields));
    program_.stages.push_back(stage);
  }

  // Says that rows of an array are to be read from a file, where it begins at an offset.
  void add_table_file(const py::array& array, int file, long offset) {
    program_.table_files.emplace_back(array.data(), static_cast<size_t>(array.nbytes()), file, offset);
    kept_.push_back(array);
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

  // From now on runs with one thread note how far the inputs of products reach.
  void watch() { watch_ = std::make_unique<Watch>(); }

  // For each instruction, by the name of the weight, what was seen: [k] each. Of experts nothing is.
  std::vector<std::map<std::string, std::vector<float>>> watched() const {
    std::vector<std::map<std::string, std::vector<float>>> found;
    for (const Instruction& instruction : program_.instructions) {
      auto& own = found.emplace_back();
      each_matrix(instruction, [&](const char* field, const std::vector<Panels>& matrices) {
        if (watch_) own[field] = watch_->most(matrices[0]);
      });
    }
    return found;
  }

  // Whether attention multiplies bytes from now on, where it does not turn queries and keys itself.
  void attend_in_int8(bool int8) {
    for (Instruction& instruction : program_.instructions)
      if (auto* op = std::get_if<Attention>(&instruction)) op->int8 = int8 && op->rope == kNone;
  }

  size_t arena_bytes() const { return executor_.arena_bytes(); }

  void drop_arena() {
    const OneAtATime once;
    const WithoutGil nogil;
    std::lock_guard<ForkSafeMutex> turn(mutex_);
    executor_.drop_arena();
  }

  size_t needed_bytes(long packs, long shared_packs, long pack, long shared, long tile, long tile_rows, int threads, size_t carried) const {
    if (packs < shared_packs || shared_packs < 0 || threads < 1) reject("there are no such packs");
    const Layouts layouts{{nullptr, pack, 0}, {nullptr, shared, 0}, {nullptr, tile, tile_rows}};
    return executor_.divide(packs, shared_packs, layouts, threads, carried).bytes;
  }

  std::vector<Floats> run_body(const Ids& ids, const Ids& positions, const Ints& cu_seqlens,
                               const std::vector<PartialArrays>& partials, const Ints& pack_segments, const Ints& pack_order,
                               long shared_packs, int task, const std::vector<RopeArrays>& ropes, const std::vector<Floats>& q_scales,
                               const LayoutArrays& pack, const LayoutArrays& shared, const LayoutArrays& tile, int threads,
                               py::object poll, const std::optional<StagingArrays>& staged, WeightStream* weights) {
    const long tokens = static_cast<long>(ids.size()), segments = static_cast<long>(cu_seqlens.size()) - 1;
    if (program_.is_tail()) reject("this program is a tail");
    if (positions.size() != tokens) reject("ids and positions differ in length");
    if (threads < 1) reject("threads must be at least 1");
    check_offsets(cu_seqlens, "cu_seqlens", tokens);
    check_offsets(pack_segments, "pack_segments", segments);
    Batch batch{ids.data(), positions.data(), cu_seqlens.data(), segments, pack_segments.data(),
                pack_order.data(), static_cast<long>(pack_segments.size()) - 1, shared_packs, task, {}, {}, {}};
    std::atomic<bool> rows_missing = false;
    batch.rows_missing = &rows_missing;
    check_order(pack_order, batch.packs);
    const std::vector<Buffer>& buffers = program_.buffers;
    std::optional<Staging> staging;
    if (staged) staging.emplace(view_staging(*staged));
    const int64_t* carried = staging ? staging->carried : nullptr;
    const Layouts layouts{view_layout(pack, buffers, Rows::tokens, carried), view_layout(shared, buffers, Rows::tokens, carried),
                          view_layout(tile, buffers, Rows::tile)};
    if (tile.rows < 1) reject("a tile has rows");
    if (task != kNone && (task < 0 || task >= program_.tasks)) reject("there is no task " + std::to_string(task));
    check_embedding(batch, tokens);
    add_positions(batch, ropes, q_scales, tokens);
    check_packs(batch, layouts);
    std::vector<Floats> results = make_results(partials, cu_seqlens, batch);
    PythonPoll python(std::move(poll));
    bool finished;
    const OneAtATime once;
    {
      const WithoutGil nogil;
      std::lock_guard<ForkSafeMutex> turn(mutex_);
      finished = (!weights || weights->load([](void* asked) { return PythonPoll::ask(asked, 0); }, &python)) &&
                 executor_.run_body(batch, layouts, threads, {PythonPoll::ask, &python}, watch_.get(), staging ? &*staging : nullptr);
    }
    if (!finished) {
      python.raise_pending();
      if (weights) raise_error_of(*weights);
      if (staging) raise_error_of(staging->stream);
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
    check_combines(data, views);
    Floats vectors({count, program_.width(program_.output)});
    const Layout view = view_layout(layout, program_.buffers, Rows::vectors);
    if (threads < 1 || view.rows < 1) reject("threads and rows must be at least 1");
    const OneAtATime once;
    float* out = vectors.mutable_data();
    const WithoutGil nogil;
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

  Staging view_staging(const StagingArrays& arrays) const {
    const std::vector<long>& own = program_.stages;
    const std::set<long> stages(own.begin(), own.end());
    if (arrays.stream.stages() != stages.size()) reject("the stream has another number of stages than the program");
    if (arrays.kept < 0) reject("there are no such stages to keep");
    return {view_carried(arrays.carried, program_.buffers), arrays.carried.row_bytes, arrays.stream, arrays.kept};
  }

  void add_positions(Batch& batch, const std::vector<RopeArrays>& ropes, const std::vector<Floats>& q_scales, long tokens) const {
    for (const RopeArrays& arrays : ropes) batch.ropes.push_back(view_rope(arrays, tokens));
    for (const Floats& factors : q_scales) {
      if (factors.size() != tokens) reject("queries need a factor for every token");
      batch.q_scales.push_back(factors.data());
    }
    const auto check_rope = [&](int rope, long size, long positions) {
      if (rope == kNone) return;
      if (rope >= static_cast<int>(ropes.size()) || ropes[rope].values.shape(1) != size || ropes[rope].values.shape(0) < positions)
        reject("the batch lacks rotary positions");
    };
    long longest = 0;
    for (long s = 0; s < batch.segments; s++) longest = std::max<long>(longest, batch.cu_seqlens[s + 1] - batch.cu_seqlens[s]);
    for (const Instruction& instruction : program_.instructions) {
      if (const Attention* op = std::get_if<Attention>(&instruction)) check_rope(op->rope, op->turn.size, longest);
      if (const Qkv* op = std::get_if<Qkv>(&instruction)) {
        check_rope(op->rope, op->rope_size, 0);
        if (op->q_scale != kNone && op->q_scale >= static_cast<int>(q_scales.size())) reject("qkv: the batch lacks its factors");
      }
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
  std::unique_ptr<Watch> watch_;
  std::vector<py::object> kept_;
};

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

PartialArrays partials_from(const py::tuple& arrays) {
  return {exact<Ints>(arrays[0], "partials"), exact<Ints>(arrays[1], "partials"), exact<Floats>(arrays[2], "partials"),
          exact<Floats>(arrays[3], "partials")};
}

std::vector<PartialArrays> all_partials(const py::list& list) {
  std::vector<PartialArrays> all;
  for (const auto& item : list) all.push_back(partials_from(item.cast<py::tuple>()));
  return all;
}

std::vector<RopeArrays> all_ropes(const py::list& list) {
  std::vector<RopeArrays> all;
  for (const auto& item : list) {
    const auto pair = item.cast<py::tuple>();
    all.push_back({exact<Ids>(pair[0], "ropes"), exact<Floats>(pair[1], "ropes")});
  }
  return all;
}

LayoutArrays layout_from(const py::tuple& layout) {
  return {exact<Ints>(layout[0], "a layout"), layout[1].cast<long>(), layout[2].cast<long>()};
}

std::optional<StagingArrays> staging_from(const std::optional<py::tuple>& staging) {
  if (!staging) return std::nullopt;
  const py::tuple& it = *staging;
  return StagingArrays{{exact<Ints>(it[0], "carried"), it[1].cast<long>()}, it[2].cast<WeightStream&>(), it[3].cast<long>()};
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
  module.def("trim_memory", &trim_memory, "Gives freed memory back to the system, where the C library can.");
  py::class_<PyProgram>(module, "Program")
      .def(py::init<const std::vector<std::tuple<std::string, long, std::string>>&, int, const std::string&>(), py::arg("buffers"),
           py::arg("output"), py::arg("isa"))
      .def("add", &PyProgram::add, py::arg("op"), py::arg("fields"))
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
            return self.run_body(exact<Ids>(ids, "ids"), exact<Ids>(positions, "positions"), exact<Ints>(cu_seqlens, "cu_seqlens"),
                                 all_partials(partials), exact<Ints>(pack_segments, "pack_segments"),
                                 exact<Ints>(pack_order, "pack_order"), shared_packs, task, all_ropes(ropes),
                                 all_exact<Floats>(q_scales, "q_scales"), layout_from(pack), layout_from(shared),
                                 layout_from(tile), threads, std::move(poll), staging_from(staging), weights);
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
