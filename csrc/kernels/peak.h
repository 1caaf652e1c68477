// peak: multiply-adds on registers alone, the machine's ceiling for this tier.
#pragma once

#include "vector.h"

namespace longspan {
namespace {

double peak(long iterations) {
  constexpr int kChains = 12;  // enough to hide the latency of a multiply-add on two ports
  V sums[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; i++) sums[i] = broadcast((float)i);
  const V a = broadcast(0.999f), b = broadcast(1e-3f);
#pragma GCC unroll 1
  for (long step = 0; step < iterations; step++) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; i++) sums[i] = fma(sums[i], a, b);
  }
  V total = zero();
#pragma GCC unroll 12
  for (int i = 0; i < kChains; i++) total += sums[i];
  volatile float sink = sum_lanes(total);
  (void)sink;
  return 2.0 * kChains * W * (double)iterations;
}

}  // namespace
}  // namespace longspan
