// linear: out = activation(x W^T + bias) * factor + residual.   qkv: the same product, stored head by head.
#pragma once

#include "activation.h"
#include "product.h"

namespace longspan {
namespace {

// What a register tile's columns become. All matrices start at the tile's corner.
struct Corner {
  Matrix out, factor, residual;

  template <Activation activation, Format format>
  V value(const typename Sums<format>::Column& sums, long row, long column, int n) const {
    V value = activate<activation, format>(sums.value(row));
    if (factor.data) value *= load_from(factor, row, column, n);
    if (residual.data) value += load_from(residual, row, column, n);
    return value;
  }
};

// Two vectors of columns, side by side: a row's cache line is written at once.
template <Activation activation, Format format>
inline void finish_pair(Corner corner, typename Sums<format>::Column left, typename Sums<format>::Column right, long rows) {
  for (long i = 0; i < rows; i++) {
    const V first = corner.value<activation, format>(left, i, 0, W), second = corner.value<activation, format>(right, i, W, W);
    store_to(corner.out, i, 0, first, W);
    store_to(corner.out, i, W, second, W);
  }
}

template <Activation activation, Format format>
inline void finish_columns(Corner corner, typename Sums<format>::Column sums, long rows, int n) {
  for (long i = 0; i < rows; i++) store_to(corner.out, i, 0, corner.value<activation, format>(sums, i, 0, n), n);
}

template <Activation activation>
struct LinearFinish {
  const LinearArgs& args;

  void expect(long row, long rows, long column, long columns) const {
    fetch<true>(args.out.from(row, column), rows, columns);
    if (args.residual.data != args.out.data) fetch<false>(args.residual.from(row, column), rows, columns);
  }

  template <Format format>
  void operator()(const Sums<format>& sums) const {
    const auto corner = [&](long j) {
      const long row = sums.row, column = sums.column + j;
      return Corner{args.out.from(row, column), args.factor.from(row, column), args.residual.from(row, column)};
    };
    long j = 0;
    for (; j + 2 * W <= sums.columns; j += 2 * W)
      finish_pair<activation, format>(corner(j), sums.at(j), sums.at(j + W), sums.rows);
    for (; j < sums.columns; j += W)
      finish_columns<activation, format>(corner(j), sums.at(j), sums.rows, (int)min_long(W, sums.columns - j));
  }
};

template <Activation activation>
void linear_as(const LinearArgs& args, long row0, long row1, long column0, long column1, void* scratch) {
  product(args.x, args.weight, args.gain, row0, row1, column0, column1, scratch, LinearFinish<activation>{args});
}

void linear(const LinearArgs& args, long row0, long row1, long column0, long column1, void* scratch) {
  switch (args.activation) {
    case Activation::identity: return linear_as<Activation::identity>(args, row0, row1, column0, column1, scratch);
    case Activation::gelu: return linear_as<Activation::gelu>(args, row0, row1, column0, column1, scratch);
    case Activation::gelu_tanh: return linear_as<Activation::gelu_tanh>(args, row0, row1, column0, column1, scratch);
    case Activation::relu: return linear_as<Activation::relu>(args, row0, row1, column0, column1, scratch);
    case Activation::silu: return linear_as<Activation::silu>(args, row0, row1, column0, column1, scratch);
    case Activation::tanh: return linear_as<Activation::tanh>(args, row0, row1, column0, column1, scratch);
  }
}

// Where column `column` of row `row` of the projection goes. A head size is a multiple of 8, so a run of 8 columns that
// starts at a multiple of 8 stays within one head.
inline Matrix head_slot(const QkvArgs& args, long row, long column) {
  const long head = column / args.head_size, within = column % args.head_size;
  if (head >= args.heads + args.kv_heads)
    return args.v.from((head - args.heads - args.kv_heads) * args.tokens + row, within);
  if (head >= args.heads) return args.k.from((head - args.heads) * args.tokens + row, within);
  return args.q.from(head * args.tokens + row, within);
}

template <Format format>
inline void finish_head_columns(typename Sums<format>::Column values, long rows, Matrix slot, int n, bool upper) {
  for (long i = 0; i < rows; i++) store_to(slot, i, 0, upper ? upper_half(values.value(i)) : values.value(i), n);
}

struct QkvFinish {
  const QkvArgs& args;

  // Columns that stay within a vector and a head.
  int run() const { return args.head_size % W == 0 || W < 8 ? W : 8; }

  void expect(long row, long rows, long column, long columns) const {
    const int n = run();
    for (long j = 0; j < columns; j += n) fetch<true>(head_slot(args, row, column + j), rows, n);
  }

  template <Format format>
  void operator()(const Sums<format>& sums) const {
    const int n = run();
    for (long j = 0; j < sums.columns; j += W)
      for (long part = 0; part < W && j + part < sums.columns; part += n)
        finish_head_columns<format>(sums.at(j), sums.rows, head_slot(args, sums.row, sums.column + j + part), n, part > 0);
  }
};

void qkv(const QkvArgs& args, long row0, long row1, long column0, long column1, void* scratch) {
  product(args.x, args.weight, args.gain, row0, row1, column0, column1, scratch, QkvFinish{args});
}

}  // namespace
}  // namespace longspan
