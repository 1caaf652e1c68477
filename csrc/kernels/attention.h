// attention: out = softmax(scores) v with scores = soft-capped(q k^T scale) + bias, flash-style, within one segment.
//
// Queries lie across the lanes and keys run down the rows, so that k and v are read as the projection wrote them, the
// softmax is vertical (no sums or maxima across lanes), and a key beyond the segment is never touched: only the queries
// are transposed on the way in, and the result on the way out. Key blocks count from the segment's start. Keys that a
// window hides from all queries of a group are skipped, 32 at a time; those that it hides from some have their scores set to
// -infinity, which leaves the running softmax of those queries as it was, to the bit.
#pragma once

#include "activation.h"
#include "left.h"
#include "tile.h"

namespace longspan {
namespace {

constexpr int kKeyBlock = (int)Kernels::kKeyBlock;
constexpr long kKeyStep = 32;     // a block's keys that are left out together where no query of a group sees them
constexpr int kLaneVectors = 2;   // vectors of queries side by side
// Rows of a register tile beside so many of them: eight chains at least, which hide a multiply-add's latency on two ports.
template <int Vectors>
constexpr int kRowsBeside = Vectors * kTileRows < 8 ? 8 : kTileRows;
constexpr int kLanes = kLaneVectors * W;
constexpr int kGroups = (int)(Kernels::kMostQueries / kLanes);

constexpr float kUnset = -3.0e38f;  // the maximum of no scores

// The running softmax of up to kLanes queries.
struct QueryState {
  float* query;   // [head_size][lanes], scaled to base 2
  float* output;  // [head_size][lanes], not yet divided
  V maximum[kLaneVectors];
  V denominator[kLaneVectors];
  long first, last;  // the queries, as rows
  int vectors;       // how many of kLaneVectors are in use
};

// Rows `row`.. of q, W of them at most → columns `lane`.. of [head_size][kLanes], times `scale`; missing rows are zero.
inline void load_queries(const Matrix& q, long row, long rows, long head_size, float scale, float* lanes) {
  for (long e = 0; e < head_size; e += W) {
    V block[W];
    const int width = (int)min_long(W, head_size - e);
    for (int i = 0; i < W; i++) block[i] = i < rows ? load_from(q, row + i, e, width) : zero();
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
    for (long i = 0; i < rows; i++) store_to(out, row + i, column + e, block[i], width);
  }
}

// scores[key][lanes] = k . query for `keys` keys.
template <int Vectors>
inline void score(const float* k, long keys, long head_size, const QueryState& state, float* scores) {
  const Lines right{state.query, kLanes, kLine};
  for_row_tiles<kRowsBeside<Vectors>>(keys, [&]<int Rows>(long key) {
    blocked_tile<Float32Terms, Rows, Vectors>(RowMajor{k + key * head_size, head_size}, right, head_size, scores + key * Vectors * W);
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
  alignas(64) float sums[kRowsBeside<Vectors> * Vectors * W];
  const Lines right{weights, Vectors * W, kLine};
  for_row_tiles<kRowsBeside<Vectors>>(head_size, [&]<int Rows>(long e) {
    tile<Float32Terms, Rows, Vectors>(ColumnMajor{v + e, head_size}, right, keys, sums, false);
    for (int i = 0; i < Rows; i++)
      for (int j = 0; j < Vectors; j++) {
        float* at = state.output + (e + i) * kLanes + j * W;
        store(at, fma(load(at), decay[j], load(sums + (i * Vectors + j) * W)));
      }
  });
}

// The scores of one head, which are in base 2, and how they are changed.
struct HeadScores {
  long left, right;
  float cap, inverse_cap;  // 0: none
  float slope;             // 0: none
  const float* relative;   // at distance 0, in base e; or null
  long reach;

  // Which keys one of the queries first .. last - 1 sees: [lowest, highest).
  long lowest(const QueryState& state) const { return state.first - left; }
  long highest(const QueryState& state) const { return state.last + right; }
  // Whether all of them see all keys of [key, end).
  bool open(const QueryState& state, long key, long end) const {
    return key >= state.last - 1 - left && end - 1 <= state.first + right;
  }
};

inline V lane_numbers() {
  float lanes[W];
  for (int i = 0; i < W; i++) lanes[i] = (float)i;
  return load(lanes);
}

// Soft cap, bias and mask, in place, for keys `key`.. of scores[key][lanes].
template <int Vectors>
inline void change_scores(float* scores, long key, long keys, const HeadScores& head, const QueryState& state, bool open) {
  const V lanes = lane_numbers();
  const V hidden = broadcast(-__builtin_inff());
  const V furthest = broadcast((float)min_long(head.left, 1L << 24)), after = broadcast(-(float)min_long(head.right, 1L << 24));
  for (long i = 0; i < keys; i++)
#pragma GCC unroll 2
    for (int j = 0; j < Vectors; j++) {
      float* at = scores + (i * Vectors + j) * W;
      const long first = state.first + j * W - (key + i);  // the first lane's query - key
      const V distance = broadcast((float)first) + lanes;
      V s = load(at);
      if (head.cap != 0) s = tanh(s * broadcast(head.inverse_cap)) * broadcast(head.cap);
      if (head.slope != 0) s = fma(broadcast(-head.slope), distance < zero() ? -distance : distance, s);
      if (head.relative) {
        const long low = -head.reach - ScoreArgs::kRelativePad;
        const V bias = load(head.relative + (first < low ? low : min_long(first, head.reach)));
        s = fma(bias, broadcast(kLog2E), s);
      }
      if (!open) s = ((distance > furthest) | (distance < after)) ? hidden : s;
      store(at, s);
    }
}

// Takes the scores of keys `key`.. into the running softmax, and their values, v[keys][head_size], into the output.
template <int Vectors>
inline void absorb(float* scores, const float* v, long key, long keys, long head_size, const HeadScores& head, bool change,
                   QueryState& state) {
  V decay[kLaneVectors];
  const bool open = head.open(state, key, key + keys);
  if (change || !open) change_scores<Vectors>(scores, key, keys, head, state, open);
  soften<Vectors>(scores, keys, state, decay);
  gather_values<Vectors>(v, keys, head_size, scores, decay, state);
}

template <int Vectors>
inline void attend(const float* k, const float* v, long key, long keys, long head_size, const HeadScores& head, bool change,
                   QueryState& state) {
  alignas(64) float scores[kKeyBlock * Vectors * W];
  score<Vectors>(k, keys, head_size, state, scores);
  absorb<Vectors>(scores, v, key, keys, head_size, head, change, state);
}

// Rows [row, row + rows) of q, kLanes at most → lanes.
inline void load_lanes(const Matrix& q, long row, long rows, long head_size, float scale, float* lanes) {
  for (long lane = 0; lane < rows; lane += W)
    load_queries(q, row + lane, min_long(W, rows - lane), head_size, scale, lanes + lane);
}

// An empty softmax for queries [first, last).
inline QueryState begin_state(long first, long last, float* query, float* output, long head_size, const float* sink) {
  QueryState state{query, output, {}, {}, first, last, (int)divide_up(last - first, W)};
  for (int j = 0; j < state.vectors; j++) {
    state.maximum[j] = broadcast(sink ? *sink * kLog2E : kUnset);
    state.denominator[j] = broadcast(sink ? 1.0f : 0.0f);
  }
  for (long e = 0; e < head_size; e++)
    for (int j = 0; j < state.vectors; j++) store(state.output + e * kLanes + j * W, zero());
  return state;
}

// Keys [first, first + count) of a segment, within its block of `size` keys from `block` on.
struct SeenKeys {
  long block, size, first, count;
  long skipped() const { return first - block; }  // a multiple of kKeyStep
};

// Calls visit(group, SeenKeys) for each block of keys and what some of a group's queries see of it. Several groups of
// queries share each block while it is in the near cache.
template <class Visit>
inline void each_key_block(const HeadScores& scores, const QueryState* states, int groups, long begin, long end, Visit visit) {
  const long lowest = scores.lowest(states[0]) - begin;
  const long start = begin + (lowest > 0 ? lowest / kKeyBlock * kKeyBlock : 0);
  const long last = min_long(end, scores.highest(states[groups - 1]));
  for (long block = start; block < last; block += kKeyBlock) {
    const long size = min_long(kKeyBlock, end - block);
    for (int g = 0; g < groups; g++) {
      const long before = scores.lowest(states[g]) - block, highest = scores.highest(states[g]) - block;
      if (highest <= 0 || before >= size) continue;
      const long skipped = before > 0 ? before / kKeyStep * kKeyStep : 0;
      const long seen = highest < size ? min_long(size, round_up(highest, kKeyStep)) : size;
      visit(g, SeenKeys{block, size, block + skipped, seen - skipped});
    }
  }
}

inline void store_state(const QueryState& state, long head_size, Matrix out, long column) {
  for (int j = 0; j < state.vectors; j++) {
    const long row = state.first + j * W;
    store_outputs(state.output + j * W, broadcast(1.0f) / state.denominator[j], min_long(W, state.last - row), head_size, out,
                  row, column);
  }
}

inline HeadScores head_scores(const ScoreArgs& args, long head) {
  const long row = 2 * (args.reach + ScoreArgs::kRelativePad) + 1;
  const float cap = args.soft_cap * kLog2E;
  return {args.left,
          args.right,
          cap,
          cap != 0 ? 1.0f / cap : 0.0f,
          args.slopes ? args.slopes[head] * kLog2E : 0.0f,
          args.relative ? args.relative + head * row + args.reach + ScoreArgs::kRelativePad : nullptr,
          args.reach};
}

// The heads that one unit of work is about.
struct OneHead {
  Matrix q, k, v;  // [tokens, head_size]
};

inline OneHead one_head(const AttentionArgs& args, long head) {
  const long kv_row = head / (args.heads / args.kv_heads) * args.tokens;
  return {args.q.from(head * args.tokens), args.k.from(kv_row), args.v.from(kv_row)};
}

// One block of keys or values as float32: where they lie, or widened when they are first asked for.
struct WidenedRows {
  float* scratch;  // [kKeyBlock][head_size]
  long held = -1;

  const float* get(const Matrix& rows, long key, long keys, long head_size) {
    if (!rows.bf16) return rows.row(key);
    if (held != key)
      for (long i = 0; i < keys; i++) copy_row(rows.from(key + i), head_size, head_size, scratch + i * head_size);
    held = key;
    return scratch;
  }
};

constexpr long widened_attention_floats(long head_size, bool bf16) {
  return 2 * (Kernels::kMostQueries + (bf16 ? kKeyBlock : 0)) * head_size;
}

void widened_attention(const AttentionArgs& args, long head, long begin, long end, long query0, long query1, float* scratch) {
  const long size = args.head_size;
  const OneHead rows = one_head(args, head);
  const HeadScores scores = head_scores(args.scores, head);
  WidenedRows keys_at{scratch + 2 * Kernels::kMostQueries * size};
  WidenedRows values_at{keys_at.scratch + kKeyBlock * size};
  QueryState states[kGroups];
  int groups = 0;
  for (long query = query0; query < query1; query += kLanes, groups++) {
    float* lanes = scratch + 2 * groups * size * kLanes;
    states[groups] = begin_state(query, min_long(query + kLanes, query1), lanes, lanes + size * kLanes, size,
                                 args.scores.sinks ? args.scores.sinks + head : nullptr);
    load_lanes(rows.q, query, states[groups].last - query, size, args.scale * kLog2E, lanes);
  }
  const bool change = args.scores.change();
  each_key_block(scores, states, groups, begin, end, [&](int g, const SeenKeys& seen) {
    const float* k = keys_at.get(rows.k, seen.block, seen.size, size) + seen.skipped() * size;
    const float* v = values_at.get(rows.v, seen.block, seen.size, size) + seen.skipped() * size;
    if (states[g].vectors == 1) attend<1>(k, v, seen.first, seen.count, size, scores, change, states[g]);
    else attend<kLaneVectors>(k, v, seen.first, seen.count, size, scores, change, states[g]);
  });
  for (int g = 0; g < groups; g++) store_state(states[g], size, args.out, head * size);
}

}  // namespace
}  // namespace longspan
