// linear: out = activation(x W^T + bias) + residual.   qkv: the same product, stored head by head.
#pragma once

#include "activation.h"
#include "tile.h"

namespace longspan {
namespace {

constexpr int kTileColumns = kTileVectors * W;

// Runs `finish(sums, rows, row, column)` on every register tile of the product; `sums` is [rows][kTileColumns] with
// the bias not yet added. Rows run inside columns: a group of columns stays in the near cache while rows stream by.
template <class Finish>
inline void product(const Matrix& x, const Panels& weight, long row0, long row1, long column0, long column1,
                    Finish finish) {
  alignas(64) float sums[kTileRows * kTileColumns];
  const long panel = weight.k * kLine;
  for (long column = column0; column < column1; column += kTileColumns) {
    const float* data = weight.data + (column / kLine) * panel + column % kLine;
    const Lines right{data, kLine, panel};
    for_row_tiles<kTileRows>(row1 - row0, [&]<int Rows>(long row) {
      blocked_tile<Rows, kTileVectors>(RowMajor{x.row(row0 + row), x.stride}, right, weight.k, sums);
      finish(sums, Rows, row0 + row, column);
    });
  }
}

template <Activation activation>
void linear_as(const LinearArgs& args, long row0, long row1, long column0, long column1) {
  product(args.x, args.weight, row0, row1, column0, column1, [&](float* sums, int rows, long row, long column) {
    const long columns = min_long(kTileColumns, args.weight.columns - column);
    for (int i = 0; i < rows; i++) {
      float* out = args.out.row(row + i) + column;
      const float* residual = args.residual.data ? args.residual.row(row + i) + column : nullptr;
      for (long j = 0; j < columns; j += W) {
        V value = load(sums + i * kTileColumns + j);
        if (args.weight.bias) value += load(args.weight.bias + column + j);
        value = activate<activation>(value);
        if (j + W <= columns) {
          if (residual) value += load(residual + j);
          store(out + j, value);
        } else {
          const int left = (int)(columns - j);
          if (residual) value += load_n(residual + j, left);
          store_n(out + j, value, left);
        }
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

void qkv(const QkvArgs& args, long row0, long row1, long column0, long column1) {
  constexpr int kRun = W < 8 ? W : 8;
  product(args.x, args.weight, row0, row1, column0, column1, [&](float* sums, int rows, long row, long column) {
    const long columns = min_long(kTileColumns, args.weight.columns - column);
    for (long j = 0; j < columns; j += kRun) {
      float* slot = head_slot(args, row, column + j);
      const float* bias = args.weight.bias ? args.weight.bias + column + j : nullptr;
      for (int i = 0; i < rows; i++)
        for (int lane = 0; lane < kRun; lane++)
          slot[i * args.head_size + lane] = sums[i * kTileColumns + j + lane] + (bias ? bias[lane] : 0.0f);
    }
  });
}

}  // namespace
}  // namespace longspan
