// choose: from a router's logits to the weights of the chosen experts.   softmax: of one row.
// add_scaled: the sum of experts, and sums of layers.
#pragma once

#include "activation.h"
#include "rows.h"
#include "table.h"
#include "vector.h"

namespace longspan {
namespace {

// The greatest of [size]; a NaN counts only where it comes first.
inline float greatest_of(const float* x, long size) {
  V tops = broadcast(x[0]);
  long i = 0;
  for (; i + W <= size; i += W) tops = greater_of(tops, load(x + i));
  float top = max_lanes(tops);
  for (; i < size; i++) top = x[i] > top ? x[i] : top;
  return top;
}

void choose(float* logits, long experts, long chosen, bool normalised) {
  constexpr long kMost = 1024;  // the bindings allow no more experts
  float weights[kMost];
  bool taken[kMost] = {};
  const V top = broadcast(greatest_of(logits, experts));
  for (long e = 0; e < experts; e += W) {
    const int n = (int)min_long(W, experts - e);
    store_some(weights + e, exp(load_some(logits + e, n) - top), n);
  }
  float sum = 0.0f;
  for (long e = 0; e < experts; e++) sum += weights[e];
  float kept = 0.0f;
  for (long turn = 0; turn < chosen; turn++) {  // of equal logits the first counts
    long best = 0;
    while (taken[best]) best++;
    for (long e = best + 1; e < experts; e++) best = !taken[e] && logits[e] > logits[best] ? e : best;
    taken[best] = true;
    kept += weights[best];
  }
  const float divisor = normalised && sum == sum ? kept : sum;  // a NaN among the logits makes all weights NaN
  for (long e = 0; e < experts; e++) logits[e] = taken[e] ? weights[e] / divisor : 0.0f;
}

void softmax(float* x, long size, float scale) {
  const V top = broadcast(greatest_of(x, size));
  for (long i = 0; i < size; i += W) {
    const int n = (int)min_long(W, size - i);
    store_some(x + i, exp((load_some(x + i, n) - top) * broadcast(scale)), n);
  }
  const float sum = row_sum(size, [&](long i, int n) { return load_some(x + i, n); });
  for (long i = 0; i < size; i += W) {
    const int n = (int)min_long(W, size - i);
    store_some(x + i, load_some(x + i, n) / broadcast(sum), n);
  }
}

void add_scaled(const float* x, float weight, long width, bool fresh, float* out) {
  for (long i = 0; i < width; i += W) {
    const int n = (int)min_long(W, width - i);
    const V term = load_some(x + i, n);
    store_some(out + i, fresh ? term * broadcast(weight) : fma(term, broadcast(weight), load_some(out + i, n)), n);
  }
}

}  // namespace
}  // namespace longspan
