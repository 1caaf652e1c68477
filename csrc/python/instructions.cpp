#include "instructions.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "../latents.h"
#include "fields.h"

namespace longspan {

namespace {

struct Heads {
  long heads, kv_heads, head_size;
};

Heads heads_of(const Fields& fields) {
  const Heads h{fields.integer("heads"), fields.integer("kv_heads"), fields.integer("head_size")};
  if (h.heads < 1 || h.kv_heads < 1 || h.heads % h.kv_heads) reject("heads must be a multiple of kv_heads");
  if (h.head_size < 8 || h.head_size > 512 || h.head_size % 8) reject("head_size must be a multiple of 8 from 8 to 512");
  return h;
}

NormKind norm_kind_of(const Fields& fields) {
  return one_of<NormKind>(fields.text("kind"), {{"layer", NormKind::layer}, {"rms", NormKind::rms}});
}

// Reads the fields of one kind of instruction.
struct Reader {
  const Program& program;
  Fields& fields;

  // Of what norms and products read and write.
  const Rows rows = program.is_tail() ? Rows::vectors : Rows::tokens;

  long width(int buffer) const { return program.width(buffer); }

  // A record of low-rank pairs, all of a program's for as many tasks.
  Fields pairs(const char* name) {
    const Fields record = fields.record(name);
    const long tasks = record.integer("tasks"), known = fields.program().tasks;
    if (tasks < 1 || record.integer("rank") < 1) reject(std::string(name) + " has neither tasks nor a rank");
    if (known && known != tasks) reject(std::string(name) + " is for another number of tasks than those before it");
    fields.program().tasks = tasks;
    return record;
  }

  // What a weight [columns, k] gains; `ranks` is the buffer between the two products.
  LowRank low_rank(const char* name, int ranks, long columns, long k) {
    if (!fields.given(name)) return {};
    Fields record = pairs(name);
    const long tasks = record.integer("tasks"), rank = record.integer("rank");
    if (ranks == kNoBuffer || width(ranks) != rank) reject(std::string(name) + " needs a buffer ranks of its rank");
    return {record.stack("left", tasks, columns, rank, Format::float32, record.number("scale")),
            record.stack("right", tasks, rank, k, Format::float32)};
  }

  TableLowRank table_low_rank(const char* name, const Table& table) {
    if (!fields.given(name)) return {};
    Fields record = pairs(name);
    const long tasks = record.integer("tasks"), rank = record.integer("rank");
    const Table left = record.table("left", rank);
    if (!table.present() || left.rows != tasks * table.rows) reject(std::string(name) + " needs a row a task for each of its table's");
    return {left, record.matrix("right", tasks * rank, table.width), record.number("scale")};
  }

  Instruction embed() {
    const int out = fields.buffer("out", Rows::tokens);
    const Table tokens = fields.table("tokens", width(out)), types = fields.table("types", width(out));
    return Embed{out, tokens, fields.table("positions", width(out)), types, fields.number("scale"),
                 fields.integer("position_offset"), table_low_rank("tokens_low_rank", tokens),
                 table_low_rank("types_low_rank", types)};
  }

  Instruction norm() {
    const int x = fields.buffer("x", rows), out = fields.any_buffer("out", rows, width(x));
    const float* scale = fields.vector("scale", 1);
    return Norm{x, out, fields.optional_buffer("residual", rows, width(x)), norm_kind_of(fields),
                fields.vector("weight", width(x), fields.number("weight_offset")), fields.vector("bias", width(x)),
                fields.number("eps"), scale ? *scale : 1.0f};
  }

  Instruction linear() {
    const int x = fields.any_buffer("x", rows), out = fields.buffer("out", rows), ranks = fields.optional_buffer("ranks", rows);
    const Format format = fields.format();
    if (program.is_tail() && (format != Format::float32 || fields.given("low_rank")))
      reject("a tail multiplies in float32, without low-rank pairs");
    return Linear{x, out, fields.optional_buffer("factor", rows, width(out)), fields.optional_buffer("residual", rows, width(out)),
                  fields.panels("weight", "bias", width(out), width(x), format), activation_of(fields.dict()),
                  ranks, low_rank("low_rank", ranks, width(out), width(x))};
  }

  HeadNorm head_norm(const Heads& h) {
    if (!fields.given("norm")) return {};
    const Fields norm = fields.record("norm");
    const bool whole = norm.flag("whole");
    const long queries = (whole ? h.heads : 1) * h.head_size, keys = (whole ? h.kv_heads : 1) * h.head_size;
    const float offset = norm.number("weight_offset");
    return {true, whole, norm.flag("values"), norm_kind_of(norm), norm.number("eps"),
            fields.vector("q_norm", queries, offset), fields.vector("k_norm", keys, offset),
            fields.vector("q_norm_bias", queries), fields.vector("k_norm_bias", keys)};
  }

  struct Turn {
    int rope = kNone;
    long size = 0;
    bool interleaved = false;
  };
  Turn turn_of(const Heads& h) {
    if (!fields.given("rope")) return {};
    const Fields rope = fields.record("rope");
    const Turn turn{static_cast<int>(rope.integer("index")), rope.integer("size"), rope.flag("interleaved")};
    if (turn.rope < 0 || turn.size < 2 || turn.size % 2 || turn.size > h.head_size) reject("no such rotary positions");
    return turn;
  }

  Instruction qkv() {
    const int x = fields.any_buffer("x", rows), ranks = fields.optional_buffer("ranks", rows);
    const Heads h = heads_of(fields);
    const long columns = (h.heads + 2 * h.kv_heads) * h.head_size;
    Qkv op{x, fields.any_buffer("q", rows, h.heads * h.head_size), fields.any_buffer("k", rows, h.kv_heads * h.head_size),
           fields.any_buffer("v", rows, h.kv_heads * h.head_size), ranks,
           fields.panels("weight", "bias", columns, width(x), fields.format()),
           low_rank("low_rank", ranks, columns, width(x)), h.heads, h.kv_heads, h.head_size, head_norm(h), kNone, 0, false, kNone};
    const Turn turn = turn_of(h);
    op.rope = turn.rope;
    op.rope_size = turn.size;
    op.interleaved = turn.interleaved;
    if (fields.given("q_scale")) op.q_scale = static_cast<int>(fields.integer("q_scale"));
    if (op.q_scale < kNone) reject("no such factors of queries");
    return op;
  }

  ScoreArgs scores(long heads) {
    const auto reach = [&](const char* name) {
      if (!fields.given(name)) return ScoreArgs::kUnlimited;
      const long keys = fields.integer(name);
      if (keys < 0) reject(std::string(name) + " is negative");
      return std::min(keys, ScoreArgs::kUnlimited);
    };
    const bool biased = fields.given("relative_bias");
    const long distances = biased ? fields.integer("reach") : 0;
    if (distances < 0) reject("reach is negative");
    const long columns = 2 * (distances + ScoreArgs::kRelativePad) + 1;
    return {reach("left"), reach("right"), fields.given("soft_cap") ? fields.number("soft_cap") : 0.0f,
            fields.numbers("slopes", heads), biased ? fields.matrix("relative_bias", heads, columns) : nullptr, distances,
            fields.vector("sinks", heads)};
  }

  // How queries and keys are turned: SelfExtend's conditions keep every position below the segment's length.
  TurnArgs extended(const Turn& turn) {
    if (fields.given("self_extend") != (turn.rope != kNone)) reject("rope and self_extend go together");
    if (turn.rope == kNone) return {nullptr, 0, false, 0, 0, 0};
    const Fields extend = fields.record("self_extend");
    const TurnArgs args{nullptr, turn.size, turn.interleaved, extend.integer("original"), extend.integer("group"),
                        extend.integer("near")};
    if (args.group < 2 || args.near < 1 || args.original / 4 < args.near) reject("self_extend has no such groups");
    return args;
  }

  Instruction attention() {
    const Heads h = heads_of(fields);
    const Turn turn = turn_of(h);
    const int q = fields.any_buffer("q", rows, h.heads * h.head_size), k = fields.any_buffer("k", rows, h.kv_heads * h.head_size);
    const int v = fields.any_buffer("v", rows, h.kv_heads * h.head_size);
    const bool bf16 = program.buffers[q].bf16;
    if (program.buffers[k].bf16 != bf16 || program.buffers[v].bf16 != bf16) reject("q, k and v are not of one dtype");
    if (bf16 && turn.rope != kNone) reject("queries and keys that are turned here are float32");
    const bool int8 = fields.flag("int8");
    if (int8 && turn.rope != kNone) reject("queries and keys that are turned here are not multiplied as bytes");
    return Attention{q, k, v, fields.any_buffer("out", rows, h.heads * h.head_size),
                     h.heads, h.kv_heads, h.head_size, fields.number("scale"), scores(h.heads), extended(turn), turn.rope, int8};
  }

  Instruction mlp() {
    const int x = fields.any_buffer("x", rows), out = fields.buffer("out", rows), hidden = fields.any_buffer("hidden", Rows::tile);
    const int ranks = fields.optional_buffer("ranks", Rows::tile);
    const Format format = fields.format();
    return Mlp{x, out, hidden, ranks, fields.optional_buffer("residual", rows, width(out)),
               fields.panels("up", "up_bias", width(hidden), width(x), format),
               fields.optional_panels("gate", "gate_bias", width(hidden), width(x), format),
               fields.panels("down", "down_bias", width(out), width(hidden), format), activation_of(fields.dict()),
               low_rank("up_low_rank", ranks, width(hidden), width(x)), low_rank("gate_low_rank", ranks, width(hidden), width(x)),
               low_rank("down_low_rank", ranks, width(out), width(hidden))};
  }

  Instruction moe() {
    const int x = fields.buffer("x", rows), out = fields.buffer("out", rows, width(x));
    const int hidden = fields.any_buffer("hidden", Rows::tile);
    const Format format = fields.format();
    const Fields routing = fields.record("routing");
    const long experts = routing.integer("experts"), chosen = routing.integer("chosen");
    if (experts < 1 || experts > 1024 || chosen < 1 || chosen > experts) reject("experts are 1 to 1024, and as many or fewer chosen");
    const auto stack = [&](const char* name, long columns, long k) { return fields.stack(name, experts, columns, k, format); };
    return Moe{x, out, fields.buffer("logits", Rows::tile, experts), fields.buffer("gathered", Rows::tile, width(x)), hidden,
               fields.buffer("sums", Rows::tile, width(out)), fields.optional_buffer("residual", rows, width(out)),
               fields.panels("router", nullptr, experts, width(x), Format::float32),
               stack("up", width(hidden), width(x)),
               fields.given("gate") ? stack("gate", width(hidden), width(x)) : std::vector<Panels>{},
               stack("down", width(out), width(hidden)),
               fields.vector("out_bias", width(out)), activation_of(fields.dict()), chosen, routing.flag("normalised")};
  }

  // The weights that two foldings share. What `read` packs lives as long as its program.
  LatentWeights latent_weights(Fields& read, const char* projection) {
    const long heads = read.integer("heads"), queries = read.rows("query");
    const long count = read.rows("latents"), latent = read.columns("latents");
    if (heads < 1 || queries < 1 || queries % heads || count < 1) reject("heads must divide the rows of the queries");
    return {read.matrix("latents", count, latent), read.vector("norm", latent), read.vector("norm_bias", latent),
            read.number("eps"), read.panels(projection, nullptr, queries, latent, Format::float32), nullptr,
            heads, queries / heads, count, latent, 0};
  }

  Panels latent_keys(long columns) {
    Program scratch{program.kernels};
    Fields read = fields.into(scratch);
    LatentWeights weights = latent_weights(read, "keys");
    weights.columns = columns;
    weights.matrix = read.matrix("query", weights.heads * weights.size, columns);
    return fold_keys(fields.program(), weights);
  }

  Panels latent_values(long columns) {
    Program scratch{program.kernels};
    Fields read = fields.into(scratch);
    LatentWeights weights = latent_weights(read, "values");
    weights.columns = columns;
    weights.matrix = read.matrix("output", columns, weights.heads * weights.size);
    return fold_values(fields.program(), weights);
  }

  Instruction latent_attention() {
    const int x = fields.buffer("x", rows), out = fields.buffer("out", rows);
    const Panels keys = latent_keys(width(x)), values = latent_values(width(out));
    return LatentAttention{x, out, fields.buffer("scores", Rows::tile, keys.columns),
                           fields.optional_buffer("residual", rows, width(out)),
                           keys, values, fields.integer("heads"), fields.number("scale")};
  }

  Instruction tap() {
    const int x = fields.buffer("x", rows), out = fields.buffer("out", rows, width(x));
    const long layers = fields.integer("layers"), index = fields.integer("index");
    if (index < 0 || index >= layers) reject("no such layer");
    const float* weights = fields.vector("weight", layers);
    if (!weights) reject("there is no weight");
    return Tap{x, out, !fields.given("into"), weights[index] / std::accumulate(weights, weights + layers, 0.0f)};
  }

  Instruction pool() {
    const int x = fields.buffer("x", rows);
    return Pool{x, fields.buffer("out", Rows::partials, width(x)),
                one_of<PoolKind>(fields.text("kind"), {{"sum", PoolKind::sum}, {"maximum", PoolKind::maximum}}),
                static_cast<int>(fields.integer("index"))};
  }

  Instruction combine() {
    const int partials = fields.buffer("partials", Rows::partials), out = fields.buffer("out", rows);
    const long column = fields.integer("column");
    if (column < 0 || column + width(partials) > width(out)) reject("column leaves the output");
    return Combine{partials, out,
                   one_of<CombineKind>(fields.text("kind"), {{"mean", CombineKind::mean},
                                                             {"mean_sqrt_len", CombineKind::mean_sqrt_len},
                                                             {"maximum", CombineKind::maximum}}),
                   static_cast<int>(fields.integer("index")), column};
  }

  Instruction normalize() {
    const int x = fields.buffer("x", rows), out = fields.buffer("out", rows);
    if (width(out) > width(x)) reject("the output is wider than the input");
    return Normalize{x, out, fields.flag("unit")};
  }

  Instruction tanh_quantize() {
    const int x = fields.buffer("x", rows);
    return TanhQuantize{x, fields.buffer("out", rows, width(x))};
  }
};

Instruction read_fields(const Program& program, const std::string& op, Fields& fields) {
  using Read = Instruction (Reader::*)();
  using Readers = std::map<std::string, Read>;
  static const Readers of_bodies{
      {"embed", &Reader::embed},         {"norm", &Reader::norm}, {"linear", &Reader::linear}, {"qkv", &Reader::qkv},
      {"attention", &Reader::attention}, {"mlp", &Reader::mlp},   {"moe", &Reader::moe},
      {"latentattention", &Reader::latent_attention},             {"tap", &Reader::tap},       {"pool", &Reader::pool}};
  static const Readers of_tails{{"combine", &Reader::combine},
                                {"linear", &Reader::linear},
                                {"norm", &Reader::norm},
                                {"normalize", &Reader::normalize},
                                {"tanhquantize", &Reader::tanh_quantize}};
  const Readers& readers = program.is_tail() ? of_tails : of_bodies;
  const auto found = readers.find(op);
  if (found == readers.end()) reject(std::string("there is no such instruction in a ") + (program.is_tail() ? "tail" : "body"));
  Reader reader{program, fields};
  return (reader.*found->second)();
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
