// Tiles of stored vectors are independent: each thread takes the next one, and compares it with all queries.
#include "scores.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <vector>

#include "threads.h"

namespace longspan {

namespace {

constexpr long kTileBytes = 1 << 17;  // of the vectors that a thread has in hand: they stay in its near cache
constexpr long kRowStep = 16;         // a multiple of every tier's W

// Calls body(first row, rows, lane) for tiles of `step` rows.
template <class Body>
void each_row_tile(long rows, long step, int lanes, Body&& body) {
  struct Context {
    Body& body;
    long rows, step;
    std::atomic<long> next{0};
  } context{body, rows, step};
  run_on_threads(
      lanes,
      [](void* pointer, int lane) {
        Context& c = *static_cast<Context*>(pointer);
        for (long row; (row = c.next.fetch_add(c.step)) < c.rows;) c.body(row, std::min(c.step, c.rows - row), lane);
      },
      &context);
}

int lanes_of(long rows, long step, int threads) {
  return static_cast<int>(std::clamp<long>(divide_up(rows, step), 1, threads));
}

}  // namespace

void scores(const Kernels& kernels, const float* queries, long count, const StoredVectors& vectors, ScoreKind kind,
            int threads, float* out) {
  const long width = vectors.width;
  std::vector<float> unit;
  if (kind == ScoreKind::cosine) {
    unit.resize(count * width);
    each_row_tile(count, kRowStep, 1, [&](long first, long rows, int) {
      for (long q = first; q < first + rows; q++) kernels.normalize(queries + q * width, width, true, unit.data() + q * width);
    });
    queries = unit.data();
  }
  const long row_bytes = width * static_cast<long>(sizeof(float)), floats = Kernels::scores_scratch(width);
  const long step = std::max(kTileBytes / row_bytes / kRowStep, 1L) * kRowStep;
  const int lanes = lanes_of(vectors.rows, step, threads);
  const auto scratch = std::make_unique_for_overwrite<float[]>(lanes * floats);
  const ScoresArgs args{kind, vectors.floats, vectors.codes, queries, count, width, {out, vectors.rows}};
  each_row_tile(vectors.rows, step, lanes, [&](long first, long rows, int lane) {
    kernels.scores(args, first, first + rows, scratch.get() + lane * floats);
  });
}

void bit_scores(const Kernels& kernels, const uint8_t* queries, long count, const uint8_t* vectors, long rows, long bytes,
                int threads, float* out) {
  const long step = std::max(kTileBytes / bytes, 1L);
  each_row_tile(rows, step, lanes_of(rows, step, threads), [&](long first, long some, int) {
    for (long q = 0; q < count; q++)
      kernels.hamming(vectors + first * bytes, some, queries + q * bytes, bytes, out + q * rows + first);
  });
}

}  // namespace longspan
