// Folds the projections of an attention over constant latents into two matrices.
#pragma once

#include "program.h"

namespace longspan {

// The weights as they are read: matrices by rows, projections of latents in panels.
struct LatentWeights {
  const float* latents;             // [latents, width]
  const float *norm, *norm_bias;    // [width], or null
  float eps;
  Panels projection;                // of keys or values: [heads * size, width]
  const float* matrix;              // the queries' [heads * size, columns], or the output's [columns, heads * size]
  long heads, size, count, width, columns;  // of heads; of one; of latents; of a latent; of x or out
};

// [heads * count, columns]: what x is multiplied with to give the scores of every head.
Panels fold_keys(Program& program, const LatentWeights& weights);

// [columns, heads * count]: what the weights of every head are multiplied with to give the output.
Panels fold_values(Program& program, const LatentWeights& weights);

}  // namespace longspan
