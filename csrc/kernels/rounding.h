// Whole numbers, rounded up.
#pragma once

namespace longspan {

constexpr long divide_up(long n, long step) { return (n + step - 1) / step; }

// To a multiple of `step`.
constexpr long round_up(long n, long step) { return divide_up(n, step) * step; }

}  // namespace longspan
