// The kernels of one tier as a table of functions over plain pointers. This is all that the executor knows of a tier.
#pragma once

#include <cstdint>

#include "rounding.h"

namespace longspan {

enum class Activation : int { identity, gelu, gelu_tanh, relu, silu, tanh };
enum class Dtype : int { float32, float16, bfloat16 };
enum class Format : int { float32, bfloat16, int8 };  // of a weight, and of what it is multiplied with
enum class PoolKind : int { sum, maximum };
enum class NormKind : int { layer, rms };
enum class ScoreKind : int { dot, cosine, euclidean, manhattan };  // distances are negated: the larger, the closer

constexpr int kLine = 16;  // floats in a line of a panel: one cache line, whatever the tier
constexpr long kLineBytes = kLine * (long)sizeof(float);

// A matrix [rows, width] with `stride` elements from row to row: float32, or bfloat16 where `bf16` says so.
struct Matrix {
  float* data;
  long stride;
  bool bf16 = false;

  float* row(long index) const { return data + index * stride; }
  uint16_t* bf16_row(long index) const { return (uint16_t*)data + index * stride; }
  // The part that begins at a row and a column.
  Matrix from(long index, long column = 0) const {
    if (!data) return *this;
    return {bf16 ? (float*)(bf16_row(index) + column) : row(index) + column, stride, bf16};
  }
};

// A weight [n, k] in panels of 16 output columns, line by line along k; n is padded with zero columns. A line holds 16
// words of 4 bytes, one a column: one float32, two bfloat16 or four int8, consecutive along k. The lines of the narrow
// formats are padded with zeros to a multiple of 16.
struct Panels {
  const float* data;  // words
  long columns;       // n
  long k;
  const float* bias;  // [n padded to 16], or null
  Format format = Format::float32;
  const float* scales = nullptr;  // int8: what a code of each column is worth, [n padded to 16]
  const float* totals = nullptr;  // int8: the sum of each column's codes, [n padded to 16]
  const float* smooth = nullptr;  // int8: what the left operand's columns are multiplied with first, [k padded to 16], or null

  static constexpr long kLineGroup = 16;
  static constexpr long terms(Format format) { return format == Format::float32 ? 1 : format == Format::bfloat16 ? 2 : 4; }
  static constexpr long lines_of(Format format, long k) {
    const long group = format == Format::float32 ? 1 : kLineGroup, span = terms(format) * group;
    return divide_up(k, span) * group;
  }
  static constexpr long padded(long columns) { return round_up(columns, kLine); }
  long lines() const { return lines_of(format, k); }
};

// A table of rows as the checkpoint stores it.
struct Table {
  const void* data;
  Dtype dtype;
  long rows;
  long width;

  bool present() const { return data != nullptr; }
};

// What a product gains: one more block of terms, x times a right matrix in `ranks`, times the left one.
struct Gain {
  Matrix ranks;  // [rows, left.k]
  Panels left;   // [n, rank]; data null: none
};

// out = activation(x W^T + bias) * factor + residual
struct LinearArgs {
  Matrix x;
  Matrix out;
  Matrix factor;    // data null: none; may be `out`
  Matrix residual;  // data null: none
  Panels weight;
  Activation activation;
  Gain gain = {};
};

// q, k and v leave the projection head-major: [heads, tokens, head_size] each.
struct QkvArgs {
  Matrix x;
  Matrix q, k, v;
  Panels weight;
  long tokens;
  long heads, kv_heads, head_size;
  Gain gain = {};
};

// What queries and keys, and perhaps values, go through after their projection, in place.
struct HeadsArgs {
  Matrix q, k, v;  // as in QkvArgs
  long tokens;
  long heads, kv_heads, head_size;
  bool normalised, whole, values;  // whether they are; over all heads together; whether values are too
  NormKind kind;
  float eps;
  const float *q_weight, *k_weight, *q_bias, *k_bias;  // [head_size], or of all heads; or null
  const int32_t* rope_rows;                            // [tokens] rows of the table, or null
  const float* rope_table;                             // [rows, rope_size]: cosines, then sines
  long rope_size;
  bool interleaved;
  const float* q_scale;  // [tokens], or null
};

// What changes scores besides their scale.
struct ScoreArgs {
  long left, right;       // a query at i sees keys i - left to i + right
  float soft_cap;         // 0: none
  const float* slopes;    // [heads]: -slope * |i - j| is added; or null
  const float* relative;  // [heads, 2 * (reach + kRelativePad) + 1] by i - j, or null; beyond `reach` it is constant
  long reach;
  const float* sinks;  // [heads], or null

  static constexpr long kRelativePad = 16;
  static constexpr long kUnlimited = 1L << 40;

  bool change() const { return soft_cap != 0 || slopes || relative; }
};

// How attention turns queries and keys by itself; see SelfExtend in engine/longspan/program/positions.py.
struct TurnArgs {
  const float* table;  // [positions, size]: cosines, then sines
  long size;           // 0: queries and keys come as they are to be
  bool interleaved;
  long original, group, near;
};

struct AttentionArgs {
  Matrix q, k, v;  // [heads or kv_heads, tokens, head_size]
  Matrix out;      // [tokens, heads * head_size]
  long tokens;
  long heads, kv_heads, head_size;
  float scale;
  ScoreArgs scores;
  TurnArgs turn;
  bool int8;  // products of bytes
};

// What the rows of a table gain: rows of a left table, from `first` on, times a right matrix.
struct TableGain {
  Table left;          // [., rank]; absent: none
  const float* right;  // [rank, width]
  long first;
  float scale;
};

struct EmbedArgs {
  const int32_t* ids;
  const int32_t* positions;
  Table tokens, position_table, types;
  float scale;  // of the token rows
  long position_offset;
  Matrix out;
  TableGain tokens_gain, types_gain;
};

// out = (normalised x * weight + bias + residual) * scale
struct NormArgs {
  Matrix x, out;
  Matrix residual;  // data null: none
  long width;
  NormKind kind;
  const float* weight;  // [width], or null
  const float* bias;    // [width], or null
  float eps;
  float scale;
};

struct PoolArgs {
  Matrix x;
  float* out;  // [columns]
  long begin, end;
  float first_weight, weight_step;
  PoolKind kind;
};

// Vectors stored as a byte a component: low + (code ^ flip) * step. `flip` is 0x80 for signed codes, else 0.
struct CodesArgs {
  const uint8_t* data;  // [rows, width]
  long width;
  uint8_t flip;
  const float *low, *step;  // [width]
};

// Stored vectors beside queries. The bits of a score depend on its two vectors alone.
struct ScoresArgs {
  ScoreKind kind;
  const float* floats;  // [rows, width], or null: codes
  CodesArgs codes;
  const float* queries;  // [count, width]; of unit length for cosines
  long count, width;
  Matrix out;  // [count, rows]
};

struct Kernels {
  const char* name;
  long tile_columns;  // `linear` and `qkv` work best on column ranges that are multiples of this

  void (*embed)(const EmbedArgs&, long row0, long row1);
  void (*norm)(const NormArgs&, long row0, long row1);
  // Rows and columns of the result; columns start at a multiple of 16. `scratch` has left_bytes() for these rows.
  void (*linear)(const LinearArgs&, long row0, long row1, long column0, long column1, void* scratch);
  void (*qkv)(const QkvArgs&, long row0, long row1, long column0, long column1, void* scratch);
  // How products of a format are done, in words for people.
  const char* (*how)(Format format);
  // Bytes that a product of so many rows needs for its left operand, which is of bfloat16 where `bf16` says so.
  long (*left_bytes)(Format format, bool bf16, long rows, long k);
  void (*finish_heads)(const HeadsArgs&, long row0, long row1);
  // Queries [query0, query1) of one head, kMostQueries at most, against the whole segment [begin, end). `scratch` has
  // attention_bytes(head_size, bf16, int8), aligned to 64 bytes.
  void (*attention)(const AttentionArgs&, long head, long begin, long end, long query0, long query1, float* scratch);
  long (*attention_bytes)(long head_size, bool bf16, bool int8);
  // Whether it is faster over bytes than over bfloat16.
  bool int8_attention_is_faster;
  // The same where it turns queries and keys by itself.
  void (*self_extend)(const AttentionArgs&, long head, long begin, long end, long query0, long query1, float* scratch);
  // A token's logits [experts] become the weights of the experts that it chooses, and zero elsewhere.
  void (*choose)(float* logits, long experts, long chosen, bool normalised);
  // x = softmax(x * scale), in place.
  void (*softmax)(float* x, long size, float scale);
  // out += weight * x, or out = weight * x where `fresh`; rows of `width`.
  void (*add_scaled)(const float* x, float weight, long width, bool fresh, float* out);
  // Columns [column0, column1) of one partial.
  void (*pool)(const PoolArgs&, long column0, long column1);
  // out = sum over `count` rows of x (or their maximum), divided by `divisor`; rows of `width`.
  void (*combine)(const float* x, long count, long width, PoolKind kind, float divisor, float* out);
  // out = x / max(|x|, 1e-12) where `unit`, else a copy.
  void (*normalize)(const float* x, long width, bool unit, float* out);
  // out = round(127 tanh(x)), ties to even.
  void (*tanh_quantize)(const float* x, long width, float* out);
  // Codes 0 .. 255 by floor((x - low) / step), clipped; NaN gives 0. Then `flip`, as in CodesArgs. Rows of `width`.
  void (*quantize_bytes)(const float* x, long rows, long width, const float* low, const float* step, uint8_t flip, uint8_t* out);
  // One bit a component, set where x > 0, most significant first; a row's last byte is filled up with zeros. Then `flip`.
  void (*quantize_bits)(const float* x, long rows, long width, uint8_t flip, uint8_t* out);
  // Rows [row0, row1) of the stored vectors. `scratch` has scores_scratch(width) floats.
  void (*scores)(const ScoresArgs&, long row0, long row1, float* scratch);
  // out[row] = -(number of bits that differ between row `row` of x and the query); rows of `bytes`.
  void (*hamming)(const uint8_t* x, long rows, const uint8_t* query, long bytes, float* out);
  // Register-only products: the ceiling that `linear` is measured against. Returns the number of operations.
  double (*peak)(Format format, long iterations);

  static constexpr long kMostQueries = 512;  // that share one pass over the keys
  static constexpr long kKeyBlock = 128;     // keys that are taken in at a time

  // Queries turned in three ways, sums, and two blocks of keys.
  static constexpr long self_extend_bytes(long head_size) {
    return (4 * kMostQueries + 2 * kKeyBlock) * head_size * (long)sizeof(float);
  }
  static constexpr long scores_stride(long width) { return round_up(width, kLine) + kLine; }
  static constexpr long scores_scratch(long width) { return kLine * scores_stride(width); }
};

extern const Kernels kGeneric;
#ifdef LONGSPAN_X86
extern const Kernels kX86V3;
extern const Kernels kX86V4;
extern const Kernels kX86V4Vnni;
extern const Kernels kX86V4Bf16;
extern const Kernels kX86V4Amx;
#endif

}  // namespace longspan
