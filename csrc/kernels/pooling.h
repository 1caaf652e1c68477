// pool, combine, normalize and tanh_quantize: from token rows to vectors.
#pragma once

#include "activation.h"
#include "rows.h"
#include "table.h"
#include "vector.h"

namespace longspan {
namespace {

// The sum depends on the partial's own rows alone: blocks of kBlock rows from its start.
void pool(const PoolArgs& args, long column0, long column1) {
  for (long column = column0; column < column1; column += W) {
    const int n = (int)min_long(W, column1 - column);
    V total = zero();
    if (args.kind == PoolKind::maximum) {
      total = load_some(args.x.row(args.begin) + column, n);
      for (long row = args.begin + 1; row < args.end; row++)
        total = sticky_max(total, load_some(args.x.row(row) + column, n));
    } else {
      for (long block = args.begin; block < args.end; block += kBlock) {
        V sum = zero();
        for (long row = block; row < min_long(block + kBlock, args.end); row++) {
          const float weight = args.first_weight + (float)(row - args.begin) * args.weight_step;
          sum = fma(broadcast(weight), load_some(args.x.row(row) + column, n), sum);
        }
        total = block == args.begin ? sum : total + sum;
      }
    }
    store_some(args.out + column, total, n);
  }
}

void combine(const float* x, long count, long width, PoolKind kind, float divisor, float* out) {
  for (long column = 0; column < width; column += W) {
    const int n = (int)min_long(W, width - column);
    V total = zero();
    for (long block = 0; block < count; block += kBlock) {
      V part = load_some(x + block * width + column, n);
      for (long row = block + 1; row < min_long(block + kBlock, count); row++) {
        V next = load_some(x + row * width + column, n);
        part = kind == PoolKind::maximum ? sticky_max(part, next) : part + next;
      }
      if (block == 0) total = part;
      else total = kind == PoolKind::maximum ? sticky_max(total, part) : total + part;
    }
    store_some(out + column, kind == PoolKind::maximum ? total : total / broadcast(divisor), n);
  }
}

// |x|, or 1e-12 where it is less.
inline float length(const float* x, long width) {
  const float squares = row_sum(width, [&](long i, int n) {
    V v = load_some(x + i, n);
    return v * v;
  });
  const float root = __builtin_sqrtf(squares);
  return root < 1e-12f ? 1e-12f : root;
}

void normalize(const float* x, long width, bool unit, float* out) {
  const V divisor = broadcast(unit ? length(x, width) : 1.0f);
  for (long i = 0; i < width; i += W) {
    const int n = (int)min_long(W, width - i);
    V v = load_some(x + i, n);
    store_some(out + i, unit ? v / divisor : v, n);
  }
}

void tanh_quantize(const float* x, long width, float* out) {
  const V magic = broadcast(kMagic);  // rounds ties to even
  for (long i = 0; i < width; i += W) {
    const int n = (int)min_long(W, width - i);
    const V v = tanh(load_some(x + i, n)) * broadcast(127.0f) + magic;
    store_some(out + i, v - magic, n);
  }
}

}  // namespace
}  // namespace longspan
