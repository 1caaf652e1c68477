// Vectors beside vectors: scores of floats, codes to floats, differing bits.
#pragma once

#include "pooling.h"

namespace longspan {
namespace {

// A tile of so many rows and queries has enough chains of multiply-adds to hide their latency.
constexpr int kScoreRows = 4;
constexpr int kScoreQueries = 3;

// kScoreRows rows beside some queries: the chain of row i and query j, lane by lane ascending over k, goes to
// out[j * W + i]. `term` adds one product or one gap to a chain.
template <int Queries, class Term>
inline void pair_chains(const float* const* rows, const float* queries, long width, Term term, V* out) {
  V sums[kScoreRows][Queries];
#pragma GCC unroll 4
  for (int i = 0; i < kScoreRows; i++)
#pragma GCC unroll 4
    for (int j = 0; j < Queries; j++) sums[i][j] = zero();
  const auto step = [&](auto take, long k) {
    V q[Queries];
#pragma GCC unroll 4
    for (int j = 0; j < Queries; j++) q[j] = take(queries + j * width + k);
#pragma GCC unroll 4
    for (int i = 0; i < kScoreRows; i++) {
      const V x = take(rows[i] + k);
#pragma GCC unroll 4
      for (int j = 0; j < Queries; j++) sums[i][j] = term(x, q[j], sums[i][j]);
    }
  };
  long k = 0;
#pragma GCC unroll 1
  for (; k + W <= width; k += W) step([](const float* p) { return load(p); }, k);
  if (k < width) step([&](const float* p) { return load_n(p, (int)(width - k)); }, k);
#pragma GCC unroll 4
  for (int i = 0; i < kScoreRows; i++)
#pragma GCC unroll 4
    for (int j = 0; j < Queries; j++) out[j * W + i] = sums[i][j];
}

// W rows as floats, where they lie or in the scratch.
struct ScoredRows {
  const float* data[W];
  V lengths;  // for cosines
  long first;
  int count;  // the last row stands in for those that are not there
};

template <int Queries, class Term, class Finish>
inline void some_queries(const ScoresArgs& args, const ScoredRows& rows, long q, Term term, Finish finish) {
  V chains[Queries][W];
  for (int i = 0; i < W; i += kScoreRows)
    pair_chains<Queries>(rows.data + i, args.queries + q * args.width, args.width, term, chains[0] + i);
  for (int j = 0; j < Queries; j++) store_some(args.out.row(q + j) + rows.first, finish(join_each(chains[j], [](V a, V b) { return a + b; })), rows.count);
}

template <class Term, class Finish>
inline void all_queries(const ScoresArgs& args, const ScoredRows& rows, Term term, Finish finish) {
  long q = 0;
  for (; q + kScoreQueries <= args.count; q += kScoreQueries) some_queries<kScoreQueries>(args, rows, q, term, finish);
  for (; q < args.count; q++) some_queries<1>(args, rows, q, term, finish);
}

inline void dequantize(const CodesArgs& args, long row, float* out) {
  const uint8_t* codes = args.data + row * args.width;
  for (long i = 0; i < args.width; i++) out[i] = args.low[i] + (float)(uint8_t)(codes[i] ^ args.flip) * args.step[i];
}

inline ScoredRows take_rows(const ScoresArgs& args, long first, int count, float* scratch) {
  ScoredRows rows{{}, broadcast(1.0f), first, count};
  for (int i = 0; i < W; i++) {
    const long row = first + min_long(i, count - 1);
    float* buffer = scratch + i * Kernels::scores_stride(args.width);
    rows.data[i] = args.floats ? args.floats + row * args.width : buffer;
    if (!args.floats) dequantize(args.codes, row, buffer);
    if (args.kind == ScoreKind::cosine) rows.lengths[i] = length(rows.data[i], args.width);
  }
  return rows;
}

inline V square_root(V v) {
  for (int i = 0; i < W; i++) v[i] = __builtin_sqrtf(v[i]);
  return v;
}

void scores(const ScoresArgs& args, long row0, long row1, float* scratch) {
  const auto product = [](V x, V q, V sum) { return fma(x, q, sum); };
  const auto square = [](V x, V q, V sum) { return fma(x - q, x - q, sum); };
  const auto gap = [](V x, V q, V sum) { return sum + magnitude(x - q); };
  for (long row = row0; row < row1; row += W) {
    const ScoredRows rows = take_rows(args, row, (int)min_long(W, row1 - row), scratch);
    switch (args.kind) {
      case ScoreKind::dot: all_queries(args, rows, product, [](V sum) { return sum; }); break;
      case ScoreKind::cosine: all_queries(args, rows, product, [&](V sum) { return sum / rows.lengths; }); break;
      case ScoreKind::euclidean: all_queries(args, rows, square, [](V sum) { return -square_root(sum); }); break;
      case ScoreKind::manhattan: all_queries(args, rows, gap, [](V sum) { return -sum; }); break;
    }
  }
}

inline uint64_t word(const uint8_t* bytes, long n) {
  uint64_t value = 0;
  __builtin_memcpy(&value, bytes, (unsigned long)n);
  return value;
}

void hamming(const uint8_t* x, long rows, const uint8_t* query, long bytes, float* out) {
  for (long row = 0; row < rows; row++, x += bytes) {
    long differing = 0, i = 0;
    for (; i + 8 <= bytes; i += 8) differing += __builtin_popcountll(word(x + i, 8) ^ word(query + i, 8));
    if (i < bytes) differing += __builtin_popcountll(word(x + i, bytes - i) ^ word(query + i, bytes - i));
    out[row] = -(float)differing;
  }
}

}  // namespace
}  // namespace longspan
