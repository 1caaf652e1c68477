// peak: products on registers alone, the machine's ceiling for this tier and format.
#pragma once

#include "left.h"
#ifdef LONGSPAN_AMX
#include "amx.h"
#endif

namespace longspan {
namespace {

constexpr int kChains = 12;  // enough to hide the latency of a multiply-add on two ports

// Keeps the compiler from knowing what `v` is.
template <class Vector>
inline void hide(Vector& v) {
#if defined(LONGSPAN_AVX512)
  asm volatile("" : "+v"(v));
#elif defined(LONGSPAN_X86)
  asm volatile("" : "+x"(v));
#else
  asm volatile("" : "+m"(v));
#endif
}

template <class Terms>
inline void run_chains(long iterations) {
  using Sum = typename Terms::Sum;
  Sum sums[kChains] = {};
#pragma GCC unroll 12
  for (int i = 0; i < kChains; i++) hide(sums[i]);  // equal chains would be calculated once
  auto a = Terms::spread({}), b = Terms::spread({});
  hide(b);
#pragma GCC unroll 1
  for (long step = 0; step < iterations; step++) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; i++) sums[i] = Terms::add(sums[i], a, b);
    hide(a);
  }
  Sum total = {};
#pragma GCC unroll 12
  for (int i = 0; i < kChains; i++) total += sums[i];
  volatile float sink = sum_lanes((V)total);
  (void)sink;
}

#ifdef LONGSPAN_AMX
template <bool bytes>
inline void multiply_four() {
  tile_multiply<bytes, 0, 4, 6>();
  tile_multiply<bytes, 1, 4, 6>();
  tile_multiply<bytes, 2, 4, 6>();
  tile_multiply<bytes, 3, 4, 6>();
}
#endif

double peak(Format format, long iterations) {
#ifdef LONGSPAN_AMX
  if (format != Format::float32) {
    const TilesInUse tiles;
    const bool bytes = format == Format::int8;
    tile_zero<0>(), tile_zero<1>(), tile_zero<2>(), tile_zero<3>(), tile_zero<4>(), tile_zero<6>();
    for (long step = 0; step < iterations; step++) {
      if (bytes) multiply_four<true>();
      else multiply_four<false>();
    }
    return 2.0 * 4 * 16 * 16 * (bytes ? 64 : 32) * (double)iterations;
  }
#endif
  const double terms = 2.0 * kChains * W * (double)iterations;
  switch (format) {
    case Format::float32: run_chains<Float32Terms>(iterations); return terms;
    case Format::bfloat16: run_chains<Bfloat16Terms>(iterations); return kDot2 ? 2 * terms : terms;
    case Format::int8: run_chains<CodeTerms>(iterations); return terms * 4 / CodeTerms::kWords;
  }
  return 0;
}

}  // namespace
}  // namespace longspan
