// What goes into each product while samples run: how far every column of its left operand reaches.
#pragma once

#include <cmath>
#include <map>
#include <vector>

#include "kernels/half.h"
#include "kernels/table.h"

namespace longspan {

class Watch {
 public:
  void see(const Panels& weight, const Matrix& x, long rows) {
    std::vector<float>& most = most_[weight.data];
    most.resize(weight.k);
    for (long row = 0; row < rows; row++)
      for (long i = 0; i < weight.k; i++) {
        const float value = std::abs(x.bf16 ? from_bfloat16(x.bf16_row(row)[i]) : x.row(row)[i]);
        if (value > most[i]) most[i] = value;
      }
  }

  // [k], zero where nothing was seen.
  std::vector<float> most(const Panels& weight) const {
    const auto found = most_.find(weight.data);
    return found == most_.end() ? std::vector<float>(weight.k) : found->second;
  }

 private:
  std::map<const float*, std::vector<float>> most_;
};

}  // namespace longspan
