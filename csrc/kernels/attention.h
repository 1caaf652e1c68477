// attention: out = softmax(q k^T scale) v, flash-style, within one segment.
//
// Queries lie across the lanes and keys run down the rows, so that k and v are read as the projection wrote them, the
// softmax is vertical (no sums or maxima across lanes), and a key beyond the segment is never touched: only the queries
// are transposed on the way in, and the result on the way out. Key blocks count from the segment's start.
#pragma once

#include "activation.h"
#include "tile.h"

namespace longspan {
namespace {

constexpr int kKeyBlock = 128;
constexpr int kHeadRows = 8;      // head sizes are multiples of 8
constexpr int kLaneVectors = 2;   // vectors of queries side by side
constexpr int kLanes = kLaneVectors * W;
constexpr int kGroups = (int)(Kernels::kQueryBlock / kLanes);

// The running softmax of up to kLanes queries.
struct QueryState {
  float* query;   // [head_size][lanes], scaled to base 2
  float* output;  // [head_size][lanes], not yet divided
  V maximum[kLaneVectors];
  V denominator[kLaneVectors];
  int vectors;  // how many of kLaneVectors are in use
};

// [rows <= W] x [head_size] row-major → columns `lane`.. of [head_size][kLanes], times `scale`; missing rows are zero.
inline void load_queries(const float* q, long rows, long head_size, float scale, float* lanes) {
  for (long e = 0; e < head_size; e += W) {
    V block[W];
    const int width = (int)min_long(W, head_size - e);
    for (int i = 0; i < W; i++) {
      block[i] = zero();
      if (i < rows) block[i] = (width == W ? load(q + i * head_size + e) : load_n(q + i * head_size + e, width));
    }
    transpose(block);
    for (int i = 0; i < width; i++) store(lanes + (e + i) * kLanes, block[i] * broadcast(scale));
  }
}

inline void store_outputs(const float* lanes, V inverse, long rows, long head_size, Matrix out, long row, long column) {
  for (long e = 0; e < head_size; e += W) {
    V block[W];
    const int width = (int)min_long(W, head_size - e);
    for (int i = 0; i < W; i++) block[i] = i < width ? load(lanes + (e + i) * kLanes) * inverse : zero();
    transpose(block);
    for (long i = 0; i < rows; i++) {
      float* at = out.row(row + i) + column + e;
      if (width == W) store(at, block[i]);
      else store_n(at, block[i], width);
    }
  }
}

// scores[key][lanes] = k . query for `keys` keys.
template <int Vectors>
inline void score(const float* k, long keys, long head_size, const QueryState& state, float* scores) {
  const Lines right{state.query, kLanes, kLine};
  for_row_tiles<kHeadRows>(keys, [&]<int Rows>(long key) {
    blocked_tile<Rows, Vectors>(RowMajor{k + key * head_size, head_size}, right, head_size, scores + key * Vectors * W);
  });
}

// Turns scores into exp2(score - maximum) in place and rescales the running state.
template <int Vectors>
inline void soften(float* scores, long keys, QueryState& state, V (&decay)[kLaneVectors]) {
#pragma GCC unroll 2
  for (int j = 0; j < Vectors; j++) {
    V top = state.maximum[j];
    for (long key = 0; key < keys; key++) top = greater_of(top, load(scores + (key * Vectors + j) * W));
    decay[j] = exp2(state.maximum[j] - top);
    state.maximum[j] = top;
    V sum = zero();
    for (long key = 0; key < keys; key++) {
      float* at = scores + (key * Vectors + j) * W;
      V p = exp2(load(at) - top);
      store(at, p);
      sum += p;
    }
    state.denominator[j] = fma(state.denominator[j], decay[j], sum);
  }
}

// output[e][lanes] = output * decay + sum over keys of v[key][e] * weight[key][lanes].
template <int Vectors>
inline void gather_values(const float* v, long keys, long head_size, const float* weights, const V (&decay)[kLaneVectors],
                          QueryState& state) {
  alignas(64) float sums[kHeadRows * Vectors * W];
  const Lines right{weights, Vectors * W, kLine};
  for (long e = 0; e < head_size; e += kHeadRows) {
    tile<kHeadRows, Vectors>(ColumnMajor{v + e, head_size}, right, keys, sums, false);
    for (int i = 0; i < kHeadRows; i++)
      for (int j = 0; j < Vectors; j++) {
        float* at = state.output + (e + i) * kLanes + j * W;
        store(at, fma(load(at), decay[j], load(sums + (i * Vectors + j) * W)));
      }
  }
}

template <int Vectors>
inline void attend(const float* k, const float* v, long keys, long head_size, QueryState& state) {
  alignas(64) float scores[kKeyBlock * Vectors * W];
  V decay[kLaneVectors];
  score<Vectors>(k, keys, head_size, state, scores);
  soften<Vectors>(scores, keys, state, decay);
  gather_values<Vectors>(v, keys, head_size, scores, decay, state);
}

inline void begin_queries(QueryState& state, const float* q, long rows, long head_size, float scale) {
  state.vectors = (int)((rows + W - 1) / W);
  for (int j = 0; j < state.vectors; j++) {
    load_queries(q + j * W * head_size, min_long(W, rows - j * W), head_size, scale, state.query + j * W);
    state.maximum[j] = broadcast(-3.0e38f);
    state.denominator[j] = zero();
  }
  for (long e = 0; e < head_size; e++)
    for (int j = 0; j < state.vectors; j++) store(state.output + e * kLanes + j * W, zero());
}

void attention(const AttentionArgs& args, long head, long begin, long end, long query0, long query1, float* scratch) {
  const long size = args.head_size;
  const long kv_head = head / (args.heads / args.kv_heads);
  const float* q = args.q + head * args.tokens * size;
  const float* k = args.k + kv_head * args.tokens * size;
  const float* v = args.v + kv_head * args.tokens * size;
  QueryState states[kGroups];
  int groups = 0;
  for (long query = query0; query < query1; query += kLanes, groups++) {
    states[groups].query = scratch + 2 * groups * size * kLanes;
    states[groups].output = states[groups].query + size * kLanes;
    begin_queries(states[groups], q + query * size, min_long(kLanes, query1 - query), size, args.scale * kLog2E);
  }
  // Several groups of queries share each block of keys while it is in the near cache.
  for (long key = begin; key < end; key += kKeyBlock) {
    const long keys = min_long(kKeyBlock, end - key);
    for (int g = 0; g < groups; g++) {
      if (states[g].vectors == 1) attend<1>(k + key * size, v + key * size, keys, size, states[g]);
      else attend<kLaneVectors>(k + key * size, v + key * size, keys, size, states[g]);
    }
  }
  for (int g = 0; g < groups; g++)
    for (int j = 0; j < states[g].vectors; j++) {
      const long row = query0 + g * kLanes + j * W;
      store_outputs(states[g].output + j * W, broadcast(1.0f) / states[g].denominator[j], min_long(W, query1 - row), size,
                    args.out, row, head * size);
    }
}

}  // namespace
}  // namespace longspan
