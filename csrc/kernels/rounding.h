// Whole numbers of any type, rounded up.
#pragma once

namespace longspan {
namespace {

template <class Whole, class Step>
constexpr Whole divide_up(Whole n, Step step) {
  return (n + (Whole)step - 1) / (Whole)step;
}

// To a multiple of `step`.
template <class Whole, class Step>
constexpr Whole round_up(Whole n, Step step) {
  return divide_up(n, step) * (Whole)step;
}

}  // namespace
}  // namespace longspan
