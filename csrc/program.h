// A program as the executor holds it: the instructions of engine/longspan/program/instructions.py with their weights
// bound and packed. No Python here.
#pragma once

#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "kernels/table.h"
#include "memory.h"
#include "table_file.h"

namespace longspan {

enum class Rows { tokens, tile, partials, vectors };

struct Buffer {
  Rows rows;
  long width;
  bool bf16;  // bfloat16, else float32

  long row_bytes() const { return width * (bf16 ? 2 : 4); }
  bool operator==(const Buffer& other) const { return rows == other.rows && width == other.width && bf16 == other.bf16; }
};

constexpr int kNoBuffer = -1;

constexpr int kNone = -1;

// What a weight gains for each task: left times right, the scale folded in.
struct LowRank {
  std::vector<Panels> left;   // [n, rank]
  std::vector<Panels> right;  // [rank, k]

  bool given(int task) const { return task != kNone && !left.empty(); }
};

// The same of a table, whose left rows stay where they are.
struct TableLowRank {
  Table left;          // [tasks * rows, rank]; absent: none
  const float* right;  // [tasks * rank, width]
  float scale;
};

// Buffers are named by their index in Program::buffers.
struct Embed {
  int out;
  Table tokens, positions, types;
  float scale;
  long position_offset;
  TableLowRank tokens_low_rank, types_low_rank;
};

struct Norm {
  int x, out, residual;
  NormKind kind;
  const float *weight, *bias;
  float eps, scale;
};

struct Linear {
  int x, out, factor, residual;
  Panels weight;
  Activation activation;
  int ranks;
  LowRank low_rank;
};

struct HeadNorm {
  bool given, whole, values;
  NormKind kind;
  float eps;
  const float *q_weight, *k_weight, *q_bias, *k_bias;
};

struct Qkv {
  int x, q, k, v, ranks;
  Panels weight;
  LowRank low_rank;
  long heads, kv_heads, head_size;
  HeadNorm norm;
  int rope;  // index of the batch's table, or kNone
  long rope_size;
  bool interleaved;
  int q_scale;  // index of the batch's factors, or kNone

  bool finished() const { return !norm.given && rope == kNone && q_scale == kNone; }
};

struct Attention {
  int q, k, v, out;
  long heads, kv_heads, head_size;
  float scale;
  ScoreArgs scores;
  TurnArgs turn;  // without its table, which is the batch's
  int rope;       // index of that, or kNone
  bool int8;      // products of bytes
};

struct Mlp {
  int x, out, hidden, ranks, residual;
  Panels up, gate, down;  // gate.data null: none
  Activation activation;
  LowRank up_low_rank, gate_low_rank, down_low_rank;
};

struct Moe {
  int x, out, logits, gathered, hidden, sums, residual;
  Panels router;
  std::vector<Panels> up, gate, down;  // by expert; gate empty: none
  const float* bias;                   // of the sum, or null
  Activation activation;
  long chosen;
  bool normalised;
};

// The projections are folded: scores are x times `keys`, and what they weigh are the columns of `values`.
struct LatentAttention {
  int x, out, scores, residual;
  Panels keys;    // [heads * latents, D]
  Panels values;  // [D, heads * latents]
  long heads;
  float scale;
};

struct Tap {
  int x, out;
  bool first;
  float weight;
};

struct Pool {
  int x, out;
  PoolKind kind;
  int index;
};

enum class CombineKind { mean, mean_sqrt_len, maximum };

struct Combine {
  int partials, out;
  CombineKind kind;
  int index;
  long column;
};

struct Normalize {
  int x, out;
  bool unit;
};

struct TanhQuantize {
  int x, out;
};

using Instruction = std::variant<Embed, Norm, Linear, Qkv, Attention, Mlp, Moe, LatentAttention, Tap, Pool, Combine, Normalize,
                                 TanhQuantize>;

struct Program {
  const Kernels* kernels;
  std::vector<Buffer> buffers = {};
  std::vector<Instruction> instructions = {};
  std::vector<long> stages = {};  // of each instruction, ascending
  int output = kNoBuffer;        // the tail's: its rows lie in the caller's array
  long tasks = 0;                // how many its low-rank pairs are for
  std::vector<Mapping> storage = {};  // what the instructions' weights point into
  std::vector<TableFile> table_files = {};  // where tables lie that are not to be in memory

  bool is_tail() const { return output != kNoBuffer; }
  long width(int buffer) const { return buffers[buffer].width; }

  // Moves the instructions of a program over the same buffers, with their weights and tables, behind these. Where there is
  // no memory for that, both stay as they are.
  void take(Program&& other);
};

// Calls visit(field, matrices) for each matrix of an instruction that has a format; those of experts come together.
template <class Visit>
void each_matrix(const Instruction& instruction, Visit visit) {
  const auto one = [&](const char* field, const Panels& matrix) {
    if (matrix.data) visit(field, std::vector<Panels>{matrix});
  };
  if (const auto* op = std::get_if<Linear>(&instruction)) one("weight", op->weight);
  if (const auto* op = std::get_if<Qkv>(&instruction)) one("weight", op->weight);
  if (const auto* op = std::get_if<Mlp>(&instruction)) one("up", op->up), one("gate", op->gate), one("down", op->down);
  if (const auto* op = std::get_if<Moe>(&instruction)) {
    visit("up", op->up);
    if (!op->gate.empty()) visit("gate", op->gate);
    visit("down", op->down);
  }
}

// A matrix of the checkpoint: rows of `columns` elements, row-major, possibly in several parts stacked along the rows.
struct SourcePart {
  const void* data;
  Dtype dtype;
  long rows;
};

// Packs [n, k] into panels of a format (see `Panels`). Rounds to the nearest; int8 by the largest weight of each column.
// `bias` may be null. `inputs`, [k] or empty, is how far the columns of the left operand reach: then int8 moves a part of
// their differences into the weight (SmoothQuant, arXiv 2211.10438, with equal shares). Where all of it is zero, as of an
// expert that no sample chose, nothing moves.
Panels pack_panels(Program& program, const std::vector<SourcePart>& parts, long k, const float* bias, Format format,
                   const std::vector<float>& inputs = {});

// The same in float32, scaled.
Panels pack_panels(Program& program, const std::vector<SourcePart>& parts, long k, const float* bias, float scale = 1.0f);

// Copies a vector, converted to float32 and moved by `offset`, padded with zeros to a multiple of 16.
const float* pack_vector(Program& program, const std::vector<SourcePart>& parts, float offset = 0.0f);

// The same from [k, n] with `stride` floats from row to row.
Panels pack_columns(Program& program, const float* rows, long stride, long n, long k);

}  // namespace longspan
