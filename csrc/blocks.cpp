#include "blocks.h"

namespace longspan {

namespace {

// The scratch of each kind of instruction.
struct Scratch {
  const Program& program;
  long tile_rows;

  bool bf16(int buffer) const { return program.buffers[buffer].bf16; }

  // A product of so many rows of a buffer, and before it what it gains.
  long product(const Panels& weight, const LowRank& low_rank, int x, long rows) const {
    long bytes = program.kernels->left_bytes(weight.format, bf16(x), rows, weight.k);
    for (const Panels& right : low_rank.right)
      bytes = std::max(bytes, program.kernels->left_bytes(right.format, bf16(x), std::max(rows, most_rows(right)), right.k));
    return bytes;
  }

  long of(const Linear& op) const { return product(op.weight, op.low_rank, op.x, most_rows(op.weight)); }
  long of(const Qkv& op) const { return product(op.weight, op.low_rank, op.x, most_rows(op.weight)); }
  long of(const Mlp& op) const {
    const long up = product(op.up, op.up_low_rank, op.x, tile_rows), down = product(op.down, op.down_low_rank, op.hidden, tile_rows);
    return std::max({up, down, op.gate.data ? product(op.gate, op.gate_low_rank, op.x, tile_rows) : 0});
  }
  long of(const Moe& op) const {
    return std::max(product(op.up[0], {}, op.gathered, tile_rows), product(op.down[0], {}, op.hidden, tile_rows));
  }
  long of(const Attention& op) const {
    if (op.rope != kNone) return Kernels::self_extend_bytes(op.head_size);
    return program.kernels->attention_bytes(op.head_size, bf16(op.q), op.int8);
  }
  long of(const Embed& op) const {
    if (program.table_files.empty()) return 0;
    const TableGain tokens{op.tokens_low_rank.left, nullptr, 0, 0}, types{op.types_low_rank.left, nullptr, 0, 0};
    return RowsRead::bytes({nullptr, nullptr, op.tokens, op.positions, op.types, 1, 0, {}, tokens, types});
  }
  template <class Other>
  long of(const Other&) const {
    return 0;
  }
};

}  // namespace

long scratch_bytes(const Program& program, long tile_rows) {
  const Scratch scratch{program, tile_rows};
  long bytes = 0;
  for (const Instruction& instruction : program.instructions)
    bytes = std::max(bytes, std::visit([&](const auto& op) { return scratch.of(op); }, instruction));
  return round_up(bytes, kLineBytes);
}

}  // namespace longspan
