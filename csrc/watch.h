// What goes into each product while samples run: how far every column of its left operand reaches.
#pragma once

#include <cmath>
#include <map>
#include <vector>

#include "kernels/half.h"
#include "kernels/table.h"

namespace longspan {

// One thread's; what several saw is put together afterwards.
class Watch {
 public:
  void see(const Panels& weight, const Matrix& x, long rows) {
    std::vector<float>& most = most_[weight.data];
    most.resize(weight.k);
    for (long row = 0; row < rows; row++) {
      if (x.bf16) raise(most.data(), weight.k, [values = x.bf16_row(row)](long i) { return from_bfloat16(values[i]); });
      else raise(most.data(), weight.k, [values = x.row(row)](long i) { return values[i]; });
    }
  }

  // Raises `most`, [k], to what was seen of a product.
  void raise(const Panels& weight, float* most) const {
    const auto found = most_.find(weight.data);
    if (found != most_.end()) raise(most, weight.k, [&](long i) { return found->second[i]; });
  }

 private:
  template <class Value>
  static void raise(float* most, long k, Value value) {
    for (long i = 0; i < k; i++) {
      const float reach = std::abs(value(i));
      most[i] = reach > most[i] ? reach : most[i];  // NaN reaches nowhere
    }
  }

  std::map<const float*, std::vector<float>> most_;
};

}  // namespace longspan
