#include "instructions.h"

#include <pybind11/stl.h>

#include "reject.h"

namespace py = pybind11;

namespace longspan {

namespace {

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

  // A buffer of so many columns.
  int buffer(const char* name, long width) const {
    const int index = buffer(name);
    if (program_.width(index) != width)
      reject(std::string(name) + " has " + std::to_string(program_.width(index)) + " columns, expected " +
             std::to_string(width));
    return index;
  }
  int optional_buffer(const char* name, long width) const { return given(name) ? buffer(name, width) : kNoBuffer; }

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

Instruction read_fields(const Program& program, const std::string& op, Fields& fields) {
  const auto width = [&](int buffer) { return program.width(buffer); };
  if (op == "embed") {
    const int out = fields.buffer("out");
    return Embed{out, fields.table("tokens", width(out)), fields.table("positions", width(out)),
                 fields.table("types", width(out)), fields.integer("position_offset")};
  }
  if (op == "norm") {
    const int x = fields.buffer("x"), out = fields.buffer("out", width(x));
    return Norm{x, out, fields.vector("weight", width(x)), fields.vector("bias", width(x)), fields.number("eps")};
  }
  if (op == "linear") {
    const int x = fields.buffer("x"), out = fields.buffer("out");
    return Linear{x, out, fields.optional_buffer("residual", width(out)), fields.panels("weight", "bias", width(out), width(x)),
                  activation_of(fields.dict())};
  }
  if (op == "qkv") {
    const int x = fields.buffer("x");
    const Heads h = heads_of(fields);
    const long columns = (h.heads + 2 * h.kv_heads) * h.head_size;
    return Qkv{x, fields.buffer("q", h.heads * h.head_size), fields.buffer("k", h.kv_heads * h.head_size),
               fields.buffer("v", h.kv_heads * h.head_size),
               fields.panels("weight", "bias", columns, width(x)), h.heads, h.kv_heads, h.head_size};
  }
  if (op == "attention") {
    const Heads h = heads_of(fields);
    return Attention{fields.buffer("q", h.heads * h.head_size), fields.buffer("k", h.kv_heads * h.head_size),
                     fields.buffer("v", h.kv_heads * h.head_size), fields.buffer("out", h.heads * h.head_size),
                     h.heads, h.kv_heads, h.head_size, fields.number("scale")};
  }
  if (op == "mlp") {
    const int x = fields.buffer("x"), out = fields.buffer("out"), hidden = fields.buffer("hidden");
    return Mlp{x, out, hidden, fields.optional_buffer("residual", width(out)),
               fields.panels("up", "up_bias", width(hidden), width(x)),
               fields.panels("down", "down_bias", width(out), width(hidden)), activation_of(fields.dict())};
  }
  if (op == "pool") {
    const int x = fields.buffer("x");
    return Pool{x, fields.buffer("out", width(x)),
                one_of<PoolKind>(fields.text("kind"), {{"sum", PoolKind::sum}, {"maximum", PoolKind::maximum}}),
                static_cast<int>(fields.integer("index"))};
  }
  if (op == "combine") {
    const int partials = fields.buffer("partials"), out = fields.buffer("out");
    const long column = fields.integer("column");
    if (column < 0 || column + width(partials) > width(out)) reject("column leaves the output");
    return Combine{partials, out,
                   one_of<CombineKind>(fields.text("kind"), {{"mean", CombineKind::mean},
                                                             {"mean_sqrt_len", CombineKind::mean_sqrt_len},
                                                             {"maximum", CombineKind::maximum}}),
                   static_cast<int>(fields.integer("index")), column};
  }
  if (op == "normalize") {
    const int x = fields.buffer("x"), out = fields.buffer("out");
    if (width(out) > width(x)) reject("the output is wider than the input");
    return Normalize{x, out, fields.flag("unit")};
  }
  reject("unknown instruction '" + op + "'");
}

}  // namespace

Instruction read_instruction(Program& program, std::vector<py::object>& kept, const std::string& op,
                             const py::dict& dict) {
  Fields fields(program, kept, dict);
  try {
    return read_fields(program, op, fields);
  } catch (const std::invalid_argument& error) {
    reject(op + ": " + error.what());
  }
}

}  // namespace longspan
