#include "latents.h"

#include <vector>

namespace longspan {

namespace {

constexpr Matrix kAbsent{nullptr, 0};

void multiply(const Kernels& kernels, Matrix x, long rows, const Panels& weight, Matrix out) {
  kernels.linear({x, out, kAbsent, kAbsent, weight, Activation::identity}, 0, rows, 0, weight.columns, nullptr);
}

// [count, heads * size]: the normalised latents, projected.
std::vector<float> project(const Kernels& kernels, const LatentWeights& w) {
  std::vector<float> normed(w.count * w.width), projected(w.count * w.projection.columns);
  const Matrix latents{const_cast<float*>(w.latents), w.width}, rows{normed.data(), w.width};
  kernels.norm({latents, rows, kAbsent, w.width, NormKind::layer, w.norm, w.norm_bias, w.eps, 1.0f}, 0, w.count);
  multiply(kernels, rows, w.count, w.projection, {projected.data(), w.projection.columns});
  return projected;
}

}  // namespace

Panels fold_keys(Program& program, const LatentWeights& w) {
  const Kernels& kernels = *program.kernels;
  std::vector<float> keys = project(kernels, w), folded(w.heads * w.count * w.columns);
  for (long head = 0; head < w.heads; head++) {
    Program scratch{program.kernels};
    const float* queries = w.matrix + head * w.size * w.columns;
    const Panels by_column = pack_columns(scratch, queries, w.columns, w.columns, w.size);
    multiply(kernels, {keys.data() + head * w.size, w.heads * w.size}, w.count, by_column,
             {folded.data() + head * w.count * w.columns, w.columns});
  }
  return pack_panels(program, {{folded.data(), Dtype::float32, w.heads * w.count}}, w.columns, nullptr);
}

Panels fold_values(Program& program, const LatentWeights& w) {
  const Kernels& kernels = *program.kernels;
  const std::vector<float> values = project(kernels, w);
  std::vector<float> own(w.count * w.size), folded(w.columns * w.heads * w.count);
  for (long head = 0; head < w.heads; head++) {
    Program scratch{program.kernels};
    for (long i = 0; i < w.count; i++)
      for (long e = 0; e < w.size; e++) own[i * w.size + e] = values[(i * w.heads + head) * w.size + e];
    const Panels by_latent = pack_panels(scratch, {{own.data(), Dtype::float32, w.count}}, w.size, nullptr);
    const Matrix output{const_cast<float*>(w.matrix) + head * w.size, w.heads * w.size};
    multiply(kernels, output, w.columns, by_latent, {folded.data() + head * w.count, w.heads * w.count});
  }
  return pack_panels(program, {{folded.data(), Dtype::float32, w.columns}}, w.heads * w.count, nullptr);
}

}  // namespace longspan
