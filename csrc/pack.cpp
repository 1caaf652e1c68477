#include "pack.h"

#include <algorithm>
#include <cstring>

#include "blocks.h"

namespace longspan {

namespace {

// Runs one instruction after another on a pack. Every thread of the team has a walker of its own.
class Walker {
 public:
  explicit Walker(const RunningPack& running)
      : program_(running.program), kernels_(*running.program.kernels), batch_(running.batch), prepared_(running.prepared),
        number_(running.number), team_(running.team), tokens_(running.tokens), layout_(running.layout),
        carried_(running.carried), space_(running.space), watch_(running.watch),
        interrupt_(running.interrupt) {
    const long first = batch_.cu_seqlens[batch_.pack_segments[number_]], block = prepared_.block_offsets[number_];
    pack_ = {batch_.ids + first, batch_.positions + first, first, batch_.tokens_of(number_), prepared_.blocks.data() + block,
             prepared_.block_offsets[number_ + 1] - block};
  }

  void execute(const Instruction& instruction) {
    std::visit([this](const auto& op) { run(op); }, instruction);
  }

 private:
  Matrix matrix(int buffer) const {
    char* data = carried_.keeps(buffer) ? carried_.of(buffer) : tokens_ + layout_.offsets[buffer];
    return {reinterpret_cast<float*>(data), program_.width(buffer), program_.buffers[buffer].bf16};
  }
  // Queries, keys or values: [heads * tokens, size].
  Matrix heads(int buffer, long size) const {
    Matrix found = matrix(buffer);
    found.stride = size;
    return found;
  }
  Matrix optional(int buffer) const { return buffer == kNoBuffer ? Matrix{nullptr, 0} : matrix(buffer); }
  Matrix tile(int buffer, int thread) const {
    return {reinterpret_cast<float*>(space_.of(thread) + space_.tile.offsets[buffer]), program_.width(buffer),
            program_.buffers[buffer].bf16};
  }
  float* scratch(int thread) const { return reinterpret_cast<float*>(space_.of(thread) + space_.tile.bytes); }

  template <class Body>
  void each_rows(long rows_a_unit, Body body) {
    team_.each(divide_up(pack_.tokens, rows_a_unit), [&](long unit) {
      body(unit * rows_a_unit, std::min((unit + 1) * rows_a_unit, pack_.tokens));
    });
  }

  // Units that may take long, all of them together.
  template <class Body>
  void each_long(long units, Body body) {
    team_.each(units, [&](long unit) {
      if (!interrupt_.wanted()) body(unit);
    });
  }

  // Shares out a product's rows x columns. A team splits columns too when there are too few rows to go round.
  template <class Body>
  void each_block(const Panels& weight, long rows, Body body) {
    const long step = kernels_.tile_columns;
    const long row_units = std::max(divide_up(rows, most_rows(weight)), 1L);
    const long row_step = round_up(divide_up(rows, row_units), block_step(weight));
    // Every unit brings its rows into the weight's format: of narrow ones there are fewer.
    const long shares = weight.format == Format::float32 ? 4 : 1;
    const long wanted = team_.size() == 1 ? 1 : divide_up(shares * team_.size(), row_units);
    const long column_step = round_up(divide_up(weight.columns, wanted), step);
    const long column_units = divide_up(weight.columns, column_step);
    each_long(row_units * column_units, [&](long unit) {
      const long row = unit / column_units * row_step, column = unit % column_units * column_step;
      if (row < rows) body(row, std::min(row + row_step, rows), column, std::min(column + column_step, weight.columns));
    });
  }

  void multiply(const LinearArgs& args, long rows) {
    each_block(args.weight, rows, [&](long row0, long row1, long column0, long column1) {
      kernels_.linear(args, row0, row1, column0, column1, scratch(team_.thread()));
    });
  }
  void multiply(const QkvArgs& args, long rows) {
    each_block(args.weight, rows, [&](long row0, long row1, long column0, long column1) {
      kernels_.qkv(args, row0, row1, column0, column1, scratch(team_.thread()));
    });
  }

  // Runs a product by `multiply`, before it what it gains for the batch's task.
  template <class Args, class Multiply>
  void adapted(Args args, const LowRank& low_rank, Matrix ranks, long rows, Multiply multiply) {
    if (watch_) watch_->see(args.weight, args.x, rows);
    if (low_rank.given(batch_.task)) {
      multiply(LinearArgs{args.x, ranks, kAbsent, kAbsent, low_rank.right[batch_.task], Activation::identity});
      args.gain = {ranks, low_rank.left[batch_.task]};
    }
    multiply(args);
  }

  TableGain gain(const TableLowRank& low_rank, const Table& table) const {
    if (batch_.task == kNone) return {};
    const Table& left = low_rank.left;
    return {left, low_rank.right + batch_.task * left.width * table.width, batch_.task * table.rows, low_rank.scale};
  }

  void run(const Embed& op) {
    const EmbedArgs args{pack_.ids, pack_.positions, op.tokens, op.positions, op.types, op.scale, op.position_offset,
                         matrix(op.out), gain(op.tokens_low_rank, op.tokens), gain(op.types_low_rank, op.types)};
    if (program_.table_files.empty()) {
      each_rows(64, [&](long row0, long row1) { kernels_.embed(args, row0, row1); });
      return;
    }
    each_rows(kRowsRead, [&](long row0, long row1) {
      EmbedArgs fetched;
      RowsRead reading(program_.table_files, reinterpret_cast<char*>(scratch(team_.thread())));
      if (!reading.fetch(args, row0, row1, fetched)) *batch_.rows_missing = true;
      kernels_.embed(fetched, 0, row1 - row0);
    });
  }

  void run(const Norm& op) {
    const NormArgs args{matrix(op.x), matrix(op.out), optional(op.residual), program_.width(op.x), op.kind,
                        op.weight,    op.bias,        op.eps,                op.scale};
    each_rows(32, [&](long row0, long row1) { kernels_.norm(args, row0, row1); });
  }

  void run(const Linear& op) {
    const LinearArgs args{matrix(op.x), matrix(op.out), optional(op.factor), optional(op.residual), op.weight, op.activation};
    adapted(args, op.low_rank, optional(op.ranks), pack_.tokens, [&](const LinearArgs& it) { multiply(it, pack_.tokens); });
  }

  void run(const Qkv& op) {
    const QkvArgs args{matrix(op.x), heads(op.q, op.head_size), heads(op.k, op.head_size), heads(op.v, op.head_size),
                       op.weight, pack_.tokens, op.heads, op.kv_heads, op.head_size};
    adapted(args, op.low_rank, optional(op.ranks), pack_.tokens, [&](const auto& it) { multiply(it, pack_.tokens); });
    if (op.finished()) return;
    const HeadNorm& norm = op.norm;
    const RopeTable rope = op.rope == kNone ? RopeTable{nullptr, nullptr} : batch_.ropes[op.rope];
    const HeadsArgs finished{args.q, args.k, args.v, pack_.tokens, op.heads, op.kv_heads, op.head_size,
                          norm.given, norm.whole, norm.values, norm.kind, norm.eps,
                          norm.q_weight, norm.k_weight, norm.q_bias, norm.k_bias,
                          rope.rows ? rope.rows + pack_.first_row : nullptr, rope.values, op.rope_size, op.interleaved,
                          op.q_scale == kNone ? nullptr : batch_.q_scales[op.q_scale] + pack_.first_row};
    each_rows(32, [&](long row0, long row1) { kernels_.finish_heads(finished, row0, row1); });
  }

  void run(const Attention& op) {
    AttentionArgs args{heads(op.q, op.head_size), heads(op.k, op.head_size), heads(op.v, op.head_size), matrix(op.out),
                       pack_.tokens, op.heads, op.kv_heads, op.head_size, op.scale, op.scores, op.turn, op.int8};
    if (op.rope != kNone) args.turn.table = batch_.ropes[op.rope].values;
    const auto attend = op.rope == kNone ? kernels_.attention : kernels_.self_extend;
    // Heads outside, query blocks inside: neighbours in time share keys and values.
    each_long(op.heads * pack_.block_count, [&](long unit) {
      const QueryBlock& block = pack_.blocks[unit % pack_.block_count];
      attend(args, unit / pack_.block_count, block.begin, block.end, block.query0, block.query1, scratch(team_.thread()));
    });
  }

  // Tiles of rows that keep all of the team busy, and are no longer than the tile buffers. One thread takes few and large.
  template <class Body>
  void each_tile(long step, Body body) {
    const long most = space_.tile.rows;
    const long tiles = team_.size() == 1 ? divide_up(pack_.tokens, most) : 8L * team_.size();
    const long fair = round_up(divide_up(pack_.tokens, std::max(tiles, 1L)), step);
    const long rows = std::clamp(fair, std::min(2 * step, most), most);
    each_long(divide_up(pack_.tokens, rows), [&](long unit) { body(unit * rows, std::min((unit + 1) * rows, pack_.tokens)); });
  }

  void run(const Mlp& op) {
    const long most = space_.tile.rows;
    if (team_.size() > 1 && pack_.tokens < 24L * team_.size()) return mlp_by_columns(op, most);
    each_tile(block_step(op.up), [&](long row0, long row1) {
      mlp_rows(op, row0, row1 - row0, team_.thread(), [&](const LinearArgs& args) {
        kernels_.linear(args, 0, row1 - row0, 0, args.weight.columns, scratch(team_.thread()));
      });
    });
  }

  // The rows of one tile, from `row` on, over a thread's tile buffers.
  template <class Multiply>
  void mlp_rows(const Mlp& op, long row, long rows, int thread, Multiply multiply) {
    const Matrix hidden = tile(op.hidden, thread), ranks = op.ranks == kNoBuffer ? kAbsent : tile(op.ranks, thread);
    if (op.gate.data) adapted(mlp_gate(op, row, hidden), op.gate_low_rank, ranks, rows, multiply);
    adapted(mlp_up(op, row, hidden), op.up_low_rank, ranks, rows, multiply);
    adapted(mlp_down(op, row, hidden), op.down_low_rank, ranks, rows, multiply);
  }

  // Few rows: the team shares the columns of each part, over the first thread's tile.
  void mlp_by_columns(const Mlp& op, long most) {
    for (long row = 0; row < pack_.tokens; row += most) {
      const long rows = std::min(most, pack_.tokens - row);
      mlp_rows(op, row, rows, 0, [&](const LinearArgs& args) { multiply(args, rows); });
    }
  }

  static constexpr Matrix kAbsent{nullptr, 0};

  LinearArgs mlp_gate(const Mlp& op, long row, Matrix hidden) const {
    return {matrix(op.x).from(row), hidden, kAbsent, kAbsent, op.gate, op.activation};
  }

  LinearArgs mlp_up(const Mlp& op, long row, Matrix hidden) const {
    const Matrix x = matrix(op.x).from(row);
    if (op.gate.data) return {x, hidden, hidden, kAbsent, op.up, Activation::identity};
    return {x, hidden, kAbsent, kAbsent, op.up, op.activation};
  }

  LinearArgs mlp_down(const Mlp& op, long row, Matrix hidden) const {
    return {hidden, matrix(op.out).from(row), kAbsent, optional(op.residual).from(row), op.down, Activation::identity};
  }

  void run(const Moe& op) {
    each_tile(block_step(op.up[0]), [&](long row0, long row1) {
      const int thread = team_.thread();
      const Matrix x = matrix(op.x).from(row0), logits = tile(op.logits, thread);
      const long rows = row1 - row0, experts = op.router.columns;
      kernels_.linear({x, logits, kAbsent, kAbsent, op.router, Activation::identity}, 0, rows, 0, experts, nullptr);
      for (long row = 0; row < rows; row++) kernels_.choose(logits.row(row), experts, op.chosen, op.normalised);
      begin_sums(op, row0, rows, tile(op.sums, thread));
      for (long expert = 0; expert < experts; expert++) run_expert(op, expert, x, rows, thread);
      const long width = program_.width(op.out);
      for (long row = 0; row < rows; row++)
        std::memcpy(matrix(op.out).row(row0 + row), tile(op.sums, thread).row(row), width * sizeof(float));
    });
  }

  // Where a tile's sums start: the residual and the bias.
  void begin_sums(const Moe& op, long row0, long rows, Matrix sums) const {
    const long width = program_.width(op.out);
    const Matrix residual = optional(op.residual).from(row0);
    for (long row = 0; row < rows; row++) {
      if (residual.data) std::memcpy(sums.row(row), residual.row(row), width * sizeof(float));
      else std::memset(sums.row(row), 0, width * sizeof(float));
      if (op.bias) kernels_.add_scaled(op.bias, 1.0f, width, false, sums.row(row));
    }
  }

  // One expert on those rows of a tile that chose it, added to their sums.
  void run_expert(const Moe& op, long expert, Matrix x, long rows, int thread) const {
    const Matrix logits = tile(op.logits, thread), gathered = tile(op.gathered, thread);
    const Matrix hidden = tile(op.hidden, thread), sums = tile(op.sums, thread);
    const long width = program_.width(op.x);
    long count = 0;
    for (long row = 0; row < rows; row++)
      if (logits.row(row)[expert] != 0) std::memcpy(gathered.row(count++), x.row(row), width * sizeof(float));
    if (count == 0) return;
    const Panels &up = op.up[expert], &down = op.down[expert];
    Matrix factor = kAbsent;
    if (watch_) watch_->see(up, gathered, count);
    if (!op.gate.empty()) {
      if (watch_) watch_->see(op.gate[expert], gathered, count);
      kernels_.linear({gathered, hidden, kAbsent, kAbsent, op.gate[expert], op.activation}, 0, count, 0, up.columns, scratch(thread));
      factor = hidden;
    }
    const Activation activation = op.gate.empty() ? op.activation : Activation::identity;
    kernels_.linear({gathered, hidden, factor, kAbsent, up, activation}, 0, count, 0, up.columns, scratch(thread));
    if (watch_) watch_->see(down, hidden, count);
    kernels_.linear({hidden, gathered, kAbsent, kAbsent, down, Activation::identity}, 0, count, 0, down.columns, scratch(thread));
    for (long row = 0, at = 0; row < rows; row++)
      if (const float weight = logits.row(row)[expert]; weight != 0)
        kernels_.add_scaled(gathered.row(at++), weight, down.columns, false, sums.row(row));
  }

  void run(const LatentAttention& op) {
    const long latents = op.keys.columns / op.heads;
    each_tile(block_step(op.keys), [&](long row0, long row1) {
      const Matrix scores = tile(op.scores, team_.thread());
      const long rows = row1 - row0;
      const Matrix x = matrix(op.x).from(row0), residual = optional(op.residual).from(row0);
      kernels_.linear({x, scores, kAbsent, kAbsent, op.keys, Activation::identity}, 0, rows, 0, op.keys.columns, nullptr);
      for (long row = 0; row < rows; row++)
        for (long head = 0; head < op.heads; head++) kernels_.softmax(scores.row(row) + head * latents, latents, op.scale);
      kernels_.linear({scores, matrix(op.out).from(row0), kAbsent, residual, op.values, Activation::identity}, 0, rows, 0,
                      op.values.columns, nullptr);
    });
  }

  void run(const Tap& op) {
    const Matrix x = matrix(op.x), out = matrix(op.out);
    each_rows(64, [&](long row0, long row1) {
      for (long row = row0; row < row1; row++)
        kernels_.add_scaled(x.row(row), op.weight, program_.width(op.x), op.first, out.row(row));
    });
  }

  void run(const Pool& op) {
    constexpr long kColumns = 128;
    const long width = program_.width(op.x), groups = divide_up(width, kColumns);
    const PartialOfPack* mine = prepared_.partials.data() + prepared_.partial_offsets[number_];
    const long count = prepared_.partial_offsets[number_ + 1] - prepared_.partial_offsets[number_];
    team_.each(count * groups, [&](long unit) {
      const PartialOfPack& at = mine[unit / groups];
      if (at.pool != op.index) return;
      const Partials& partials = batch_.partials[at.pool];
      const PoolArgs args{matrix(op.x), partials.data + at.partial * width, partials.starts[at.partial] - pack_.first_row,
                          partials.ends[at.partial] - pack_.first_row, partials.first_weight[at.partial],
                          partials.weight_step[at.partial], op.kind};
      const long column = unit % groups * kColumns;
      kernels_.pool(args, column, std::min(column + kColumns, width));
    });
  }

  void run(const Combine&) {}       // of the tail
  void run(const Normalize&) {}     // of the tail
  void run(const TanhQuantize&) {}  // of the tail

  const Program& program_;
  const Kernels& kernels_;
  const Batch& batch_;
  const Prepared& prepared_;
  const long number_;
  Team& team_;
  char* tokens_;
  const Layout& layout_;
  const Carried carried_;
  const ThreadSpace& space_;
  Watch* const watch_;  // null: nobody watches
  const Interrupt interrupt_;
  Pack pack_;
};

}  // namespace

void execute(const RunningPack& pack, const Instruction& instruction) { Walker(pack).execute(instruction); }

}  // namespace longspan
