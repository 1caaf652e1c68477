// exp, erf and the activations on vectors of float32.
#pragma once

#include "table.h"
#include "vector.h"

namespace longspan {
namespace {

// 2^x; zero below 2^-126. The polynomial is the minimax fit of 2^f on [-1/2, 1/2] with p(0) = 1, relative error 7e-9.
inline V exp2(V x) {
  const V magic = broadcast(kMagic);
  V clamped = at_least(at_most(x, 127.0f), -126.0f);
  V shifted = clamped + magic;
  V f = clamped - (shifted - magic);
  V p = broadcast(1.535336188319500e-4f);
  p = fma(p, f, broadcast(1.339887440266574e-3f));
  p = fma(p, f, broadcast(9.618437357674640e-3f));
  p = fma(p, f, broadcast(5.550332471162809e-2f));
  p = fma(p, f, broadcast(2.402264791363012e-1f));
  p = fma(p, f, broadcast(6.931472028550421e-1f));
  p = fma(p, f, broadcast(1.0f));
  VI scale = ((VI)shifted - (VI)magic + 127) << 23;
  V result = p * (V)scale;
  return x < broadcast(-126.0f) ? zero() : result;
}

constexpr float kLog2E = 1.4426950408889634f;

inline V exp(V x) { return exp2(x * broadcast(kLog2E)); }

// 1 / (1 + exp(-x))
inline V sigmoid(V x) { return broadcast(1.0f) / (broadcast(1.0f) + exp(-x)); }

// x * Phi(x), the exact GELU. The normal tail Phi(-a) = 2^q(a) is smooth, and taking it directly leaves nothing to cancel
// for negative x. q is a weighted minimax fit on [0, 10], and beyond it the tail stays what it is at 10, 8e-23; the error
// stays below that of 0.5 x (1 + erf(x / sqrt 2)).
inline V gelu(V x) {
  V a = at_most(x < zero() ? -x : x, 10.0f);
  V q = broadcast(5.053441554103699e-10f);
  q = fma(q, a, broadcast(-2.6589491497475137e-8f));
  q = fma(q, a, broadcast(5.98067231294408e-7f));
  q = fma(q, a, broadcast(-7.440734862029785e-6f));
  q = fma(q, a, broadcast(5.4222182370722294e-5f));
  q = fma(q, a, broadcast(-2.026570145972073e-4f));
  q = fma(q, a, broadcast(-1.5162720228545368e-4f));
  q = fma(q, a, broadcast(7.113608531653881e-3f));
  q = fma(q, a, broadcast(-5.2537258714437485e-2f));
  q = fma(q, a, broadcast(-4.5919570326805115e-1f));
  q = fma(q, a, broadcast(-1.151106357574463f));
  V tail = a * exp2(fma(q, a, broadcast(-1.0f)));
  return at_least(x, 0.0f) - tail;
}

// 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) = x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3))
inline V gelu_tanh(V x) {
  V cubic = x * fma(x * x, broadcast(0.044715f), broadcast(1.0f));
  return x * sigmoid(cubic * broadcast(1.5957691216057308f));
}

inline V silu(V x) { return x * sigmoid(x); }

// Near zero the odd polynomial of Cephes' tanhf, which keeps the relative error small; elsewhere 1 - 2 / (e^2|x| + 1).
inline V tanh(V x) {
  V a = x < zero() ? -x : x;
  V z = x * x;
  V p = broadcast(-5.70498872745e-3f);
  p = fma(p, z, broadcast(2.06390887954e-2f));
  p = fma(p, z, broadcast(-5.37397155531e-2f));
  p = fma(p, z, broadcast(1.33314422036e-1f));
  p = fma(p, z, broadcast(-3.33332819422e-1f));
  V near = fma(p * z, x, x);
  V far = broadcast(1.0f) - broadcast(2.0f) / (exp(a + a) + broadcast(1.0f));
  far = x < zero() ? -far : far;
  return a < broadcast(0.625f) ? near : far;
}

inline V relu(V x) { return at_least(x, 0.0f); }

// x * Phi(x), absolute error 9e-5 and beyond 4.2 a relative one of 1e-6: for what is rounded to bfloat16 or a byte.
// Phi(x) - 1/2 is odd: a minimax polynomial in x^2 on [-4.2, 4.2], at whose ends it is 1/2.
inline V rough_gelu(V x) {
  const V u = at_most(at_least(x, -4.2f), 4.2f);
  const V t = u * u;
  V p = fma(broadcast(-9.01828505e-10f), t, broadcast(7.94183913e-8f));
  p = fma(p, t, broadcast(-3.0380651e-6f));
  p = fma(p, t, broadcast(6.68925333e-5f));
  p = fma(p, t, broadcast(-9.50671317e-4f));
  p = fma(p, t, broadcast(9.29828459e-3f));
  p = fma(p, t, broadcast(-6.55283066e-2f));
  p = fma(p, t, broadcast(3.98465939e-1f));
  return x < broadcast(-4.2f) ? zero() : x * fma(p, u, broadcast(0.5f));
}

// What the results of a product with a weight of this format go through.
template <Activation kind, Format format>
inline V activate(V x) {
  if constexpr (kind == Activation::gelu && format != Format::float32) return rough_gelu(x);
  if constexpr (kind == Activation::gelu) return gelu(x);
  if constexpr (kind == Activation::gelu_tanh) return gelu_tanh(x);
  if constexpr (kind == Activation::relu) return relu(x);
  if constexpr (kind == Activation::silu) return silu(x);
  if constexpr (kind == Activation::tanh) return tanh(x);
  return x;
}

}  // namespace
}  // namespace longspan
