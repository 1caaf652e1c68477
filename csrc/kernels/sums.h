// What a register tile leaves behind, and how it becomes values.
#pragma once

#include "left.h"

namespace longspan {
namespace {

// Sums of a tile, [rows][stride] floats or, for int8, integers: for `columns` columns from `column` on.
template <Format format>
struct Sums {
  const float* data;
  long stride;
  int rows;
  long row, column, columns;
  const Panels* weight;
  const RowScale* scales;  // int8: of these rows
  const float* gain;       // [rows][stride] to be added, or null

  // W columns from `j` on: what is the same for all rows. Copies, so that a store through a pointer changes none of it.
  struct Column {
    const float *data, *gain;
    long stride;
    const RowScale* scales;
    V bias, scale, total;

    // left x right + gain + bias, for row i.
    V value(long i) const {
      V v = load(data + i * stride);
      if constexpr (format == Format::int8)
        v = fma(broadcast(scales[i].shift), total, __builtin_convertvector((VI)v, V)) * (broadcast(scales[i].step) * scale);
      if (gain) v += load(gain + i * stride);
      return v + bias;
    }
  };

  Column at(long j) const {
    Column found{data + j, gain ? gain + j : nullptr, stride, scales, zero(), zero(), zero()};
    if (weight->bias) found.bias = load(weight->bias + column + j);
    if constexpr (format == Format::int8) {
      found.scale = load(weight->scales + column + j);
      found.total = load(weight->totals + column + j);
    }
    return found;
  }
};

}  // namespace
}  // namespace longspan
