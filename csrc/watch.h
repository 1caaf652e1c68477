// What goes into each product while samples run: how far every column of its left operand reaches.
#pragma once

#include <cmath>
#include <map>
#include <vector>

#include "kernels/half.h"
#include "kernels/table.h"
#include "program.h"

namespace longspan {

// One thread's; what several saw is put together afterwards.
class Watch {
 public:
  // Makes room for the program's products before a run, in which nothing is allocated; what was seen stays.
  void prepare(const Program& program) {
    for (const Instruction& instruction : program.instructions)
      each_matrix(instruction, [&](const char*, const std::vector<Panels>& matrices) {
        for (const Panels& weight : matrices) most_[weight.data].resize(weight.k);
      });
  }

  // Raises what reaches farther; other products than those are passed over.
  void see(const Panels& weight, const Matrix& x, long rows) {
    const auto found = most_.find(weight.data);
    if (found == most_.end()) return;
    std::vector<float>& most = found->second;
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
