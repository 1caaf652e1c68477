// linear: out = activation(x W^T + bias) * factor + residual.   qkv: the same product, stored head by head.
#pragma once

#include "activation.h"
#include "tile.h"

namespace longspan {
namespace {

constexpr int kTileColumns = kTileVectors * W;

// Sums of a register tile: [rows][stride], for the columns from `column` on. The bias is not yet added.
struct Sums {
  const float* data;
  long stride;
  int rows;
  long row, column, columns;

  const float* at(int i, long j) const { return data + i * stride + j; }
};

// A weight's columns from `column` on.
inline Lines lines_from(const Panels& weight, long column) {
  const long panel = weight.k * kLine;
  return {weight.data + column / kLine * panel + column % kLine, kLine, panel};
}

template <int Vectors, class Finish>
inline void column_group(const Matrix& x, const Panels& weight, const Gain& gain, long row0, long row1, long column,
                         long columns, Finish& finish) {
  alignas(64) float sums[kTileRows * Vectors * W];
  const Lines right = lines_from(weight, column);
  for_row_tiles<kTileRows>(row1 - row0, [&]<int Rows>(long row) {
    blocked_tile<Rows, Vectors>(RowMajor{x.row(row0 + row), x.stride}, right, weight.k, sums);
    if (gain.left.data)
      add_blocks<Rows, Vectors>(RowMajor{gain.ranks.row(row0 + row), gain.ranks.stride}, lines_from(gain.left, column),
                                gain.left.k, 0, sums);
    finish(Sums{sums, Vectors * W, Rows, row0 + row, column, columns});
  });
}

// Calls finish(Sums) for every register tile of the product. Rows run inside columns: a group of columns stays in the
// near cache while rows stream by. A tile never reaches beyond the last panel.
template <class Finish>
inline void product(const Matrix& x, const Panels& weight, const Gain& gain, long row0, long row1, long column0,
                    long column1, Finish finish) {
  long column = column0;
  for (; column + kTileColumns <= column1; column += kTileColumns)
    column_group<kTileVectors>(x, weight, gain, row0, row1, column, kTileColumns, finish);
  for (; column < column1; column += W)
    column_group<1>(x, weight, gain, row0, row1, column, min_long(W, column1 - column), finish);
}

template <Activation activation>
void linear_as(const LinearArgs& args, long row0, long row1, long column0, long column1) {
  product(args.x, args.weight, args.gain, row0, row1, column0, column1, [&](const Sums& sums) {
    for (int i = 0; i < sums.rows; i++) {
      float* out = args.out.row(sums.row + i) + sums.column;
      const float* factor = args.factor.data ? args.factor.row(sums.row + i) + sums.column : nullptr;
      const float* residual = args.residual.data ? args.residual.row(sums.row + i) + sums.column : nullptr;
      for (long j = 0; j < sums.columns; j += W) {
        const int n = (int)min_long(W, sums.columns - j);
        V value = load(sums.at(i, j));
        if (args.weight.bias) value += load(args.weight.bias + sums.column + j);
        value = activate<activation>(value);
        if (factor) value *= load_some(factor + j, n);
        if (residual) value += load_some(residual + j, n);
        store_some(out + j, value, n);
      }
    }
  });
}

void linear(const LinearArgs& args, long row0, long row1, long column0, long column1) {
  switch (args.activation) {
    case Activation::identity: return linear_as<Activation::identity>(args, row0, row1, column0, column1);
    case Activation::gelu: return linear_as<Activation::gelu>(args, row0, row1, column0, column1);
    case Activation::gelu_tanh: return linear_as<Activation::gelu_tanh>(args, row0, row1, column0, column1);
    case Activation::relu: return linear_as<Activation::relu>(args, row0, row1, column0, column1);
    case Activation::silu: return linear_as<Activation::silu>(args, row0, row1, column0, column1);
    case Activation::tanh: return linear_as<Activation::tanh>(args, row0, row1, column0, column1);
  }
}

// Where column `column` of row `row` of the projection goes. A head size is a multiple of 8, so a run of 8 columns that
// starts at a multiple of 8 stays within one head.
inline float* head_slot(const QkvArgs& args, long row, long column) {
  const long head = column / args.head_size, within = column % args.head_size;
  float* base = args.q;
  long local = head;
  if (head >= args.heads + args.kv_heads) {
    base = args.v;
    local = head - args.heads - args.kv_heads;
  } else if (head >= args.heads) {
    base = args.k;
    local = head - args.heads;
  }
  return base + (local * args.tokens + row) * args.head_size + within;
}

// Stores `Run` columns of a tile, from its column j on; they lie in one head.
template <int Run>
inline void store_run(const QkvArgs& args, const Sums& sums, long j) {
  float* slot = head_slot(args, sums.row, sums.column + j);
  const V bias = args.weight.bias ? load_some(args.weight.bias + sums.column + j, Run) : zero();
  for (int i = 0; i < sums.rows; i++)
    store_some(slot + i * args.head_size, load_some(sums.at(i, j), Run) + bias, Run);
}

void qkv(const QkvArgs& args, long row0, long row1, long column0, long column1) {
  product(args.x, args.weight, args.gain, row0, row1, column0, column1, [&](const Sums& sums) {
    constexpr int kRun = W < 8 ? W : 8;
    if (args.head_size % W == 0)
      for (long j = 0; j < sums.columns; j += W) store_run<W>(args, sums, j);
    else
      for (long j = 0; j < sums.columns; j += kRun) store_run<kRun>(args, sums, j);
  });
}

}  // namespace
}  // namespace longspan
