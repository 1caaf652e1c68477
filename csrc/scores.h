// Scores between vectors: the larger, the closer.
#pragma once

#include "kernels/table.h"

namespace longspan {

// Vectors as they lie in memory, [rows, width]: floats, or codes where `floats` is null.
struct StoredVectors {
  const float* floats;
  CodesArgs codes;
  long rows, width;
};

// out[queries, vectors.rows] from queries [queries, width]. The bits of a score depend on its two vectors alone.
void scores(const Kernels& kernels, const float* queries, long count, const StoredVectors& vectors, ScoreKind kind,
            int threads, float* out);

// out[queries, rows] = -(number of differing bits), of rows of packed bits.
void bit_scores(const Kernels& kernels, const uint8_t* queries, long count, const uint8_t* vectors, long rows, long bytes,
                int threads, float* out);

}  // namespace longspan
