// attention over bfloat16, by products of pairs: what attention.h does, with the weights rounded to bfloat16 too.
//
// A block's keys are the left operand as they lie, and its values are turned once for all queries of a unit; the weights
// come out of the softmax as the lines of a right operand. Rows beyond the last key are zeros.
#pragma once

#include "attention.h"
#ifdef LONGSPAN_AMX
#include "product_amx.h"
#endif

namespace longspan {
namespace {

#ifdef LONGSPAN_DOT2

constexpr long kPairKeys = 32;  // what AMX takes of keys, of k and of head sizes at a time
static_assert(kKeyStep % kPairKeys == 0);

// The bytes of a unit's scratch and the places in it.
struct Bf16Space {
  long size, columns;  // of a head; padded
  explicit constexpr Bf16Space(long head_size) : size(head_size), columns(round_up(head_size, kPairKeys)) {}

  constexpr long query_words() const { return columns / 2 * kLanes; }
  constexpr long output_words() const { return columns * kLanes; }
  constexpr long group_words() const { return query_words() + output_words(); }
  constexpr long block_words() const { return kKeyBlock * columns / 2; }
  constexpr long bytes() const { return (kGroups * group_words() + 2 * block_words()) * 4; }
};

// Rows [row, row + rows) of q → lines [columns / 2][kLanes] of pairs.
inline void load_query_lines(const Matrix& q, long row, long rows, const Bf16Space& space, float* lines) {
  __builtin_memset(lines, 0, space.query_words() * sizeof(float));
  for (long lane = 0; lane < rows; lane += W)
    for (long pair = 0; pair < space.size / 2; pair += W) {
      V block[W];
      const int n = (int)min_long(W, space.size / 2 - pair), count = (int)min_long(W, rows - lane);
      for (int i = 0; i < W; i++)
        block[i] = i < count ? load_some((const float*)q.bf16_row(row + lane + i) + pair, n) : zero();
      transpose(block);
      for (int i = 0; i < n; i++) store(lines + (pair + i) * kLanes + lane, block[i]);
    }
}

// Keys of a block and its values turned, from one of the block's keys on.
struct Bf16Keys {
  const uint16_t* keys;
  long stride;             // halves
  const uint16_t* values;  // [columns][kKeyBlock]
};

// One block of keys and values of one head.
struct Bf16Block {
  uint16_t *key_rows, *value_columns;  // scratch: [kKeyBlock][columns], [columns][kKeyBlock]
  const uint16_t* keys = nullptr;
  long key_stride = 0;  // halves
  long held = -1;

  Bf16Keys from(long skipped) const { return {keys + skipped * key_stride, key_stride, value_columns + skipped}; }

  void hold(const OneHead& rows, long key, long count, const Bf16Space& space) {
    if (held == key) return;
    held = key;
    keys = rows.k.bf16_row(key), key_stride = space.size;
    if (count % kPairKeys || space.size != space.columns) {
      for (long i = 0; i < count; i++) copy_bf16(rows.k.bf16_row(key + i), space, key_rows + i * space.columns);
      __builtin_memset(key_rows + count * space.columns, 0, (round_up(count, kPairKeys) - count) * space.columns * 2);
      keys = key_rows, key_stride = space.columns;
    }
    for (long e = 0; e < space.columns; e += W)
      for (long first = 0; first < count; first += 2 * W) turn_values(rows.v, key, first, count, e, space);
  }

 private:
  static void copy_bf16(const uint16_t* from, const Bf16Space& space, uint16_t* to) {
    __builtin_memcpy(to, from, space.size * 2);
    __builtin_memset(to + space.size, 0, (space.columns - space.size) * 2);
  }

  // Values [first, first + 2 W) of the block, W columns from `e` on.
  void turn_values(const Matrix& v, long key, long first, long count, long e, const Bf16Space& space) {
    V block[W];
    const int n = (int)min_long(W, space.size - e);
    for (int i = 0; i < W; i++) {
      const long at = first + 2 * i;
      VI pair = {};
      if (n > 0 && at < count) pair = load_some_words(v.bf16_row(key + at) + e, n);
      if (n > 0 && at + 1 < count) pair |= load_some_words(v.bf16_row(key + at + 1) + e, n) << 16;
      block[i] = (V)pair;
    }
    transpose(block);
    for (int i = 0; i < W; i++) store((float*)(value_columns + (e + i) * kKeyBlock + first), block[i]);
  }
};

// scores[key][lanes] = k . query, unscaled.
template <int Vectors>
inline void score_bf16(const Bf16Keys& block, long keys, const Bf16Space& space, const QueryState& state, float* scores) {
#ifdef LONGSPAN_AMX
  for (long key = 0; key < keys; key += kAmxSide) {
    const char* a = (const char*)(block.keys + key * block.stride);
    zero_block<true, Vectors == 2>();
    add_block<false, true, Vectors == 2>(a, 2 * block.stride, (const char*)state.query, kLanes * 4, 64, space.columns / 32,
                                         NothingAhead{});
    store_block<true, Vectors == 2>(scores + key * Vectors * W, Vectors * 64);
  }
#else
  const Lines right{state.query, kLanes, kLine};
  for_row_tiles<kTileRows>(keys, [&]<int Rows>(long key) {
    const RowMajorOf<int32_t> left{(const int32_t*)(block.keys + key * block.stride), block.stride / 2};
    tile<PairTerms, Rows, Vectors>(left, right, space.size / 2, scores + key * Vectors * W, false);
  });
#endif
}

// Two positive numbers a lane as a pair of bfloat16.
inline V as_pair(V first, V second) {
  const VU low = (VU)first + 0x8000, high = (VU)second + 0x8000;
  return (V)_mm512_mask_blend_epi16(0xaaaaaaaa, (__m512i)(low >> 16), (__m512i)high);
}

// 2^x, relative error 1e-4: for what is rounded to bfloat16. The polynomial is the minimax fit of 2^f on [0, 1].
inline V pair_exp2(V x) {
  constexpr int kDown = 9;  // round towards minus infinity, no exceptions
  const V f = (V)_mm512_reduce_ps((__m512)x, kDown);
  V p = fma(broadcast(7.80230067e-02f), f, broadcast(2.26069391e-01f));
  p = fma(p, f, broadcast(6.95832847e-01f));
  p = fma(p, f, broadcast(9.99925245e-01f));
  return (V)_mm512_scalef_ps((__m512)p, (__m512)x);
}

constexpr float kMostSum = 16777216.0f;  // of a block's weights

inline bool any(VI mask) { return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0; }

// Scores of W queries, times `scale`, become lines of weights 2^(score - reference), in place. Returns the weights' sum.
template <int Vectors>
inline V weigh(float* scores, long keys, V scale, V reference) {
  V sums[2] = {zero(), zero()};
  for (long key = 0; key < keys; key += 2) {
    float* at = scores + key * Vectors * W;
    const V first = pair_exp2(fma(load(at), scale, -reference));
    const V second = key + 1 < keys ? pair_exp2(fma(load(at + Vectors * W), scale, -reference)) : zero();
    sums[0] += first;
    sums[1] += second;
    store(scores + key / 2 * Vectors * W, as_pair(first, second));
  }
  for (long line = (keys + 1) / 2; line < round_up(keys, kPairKeys) / 2; line++) store(scores + line * Vectors * W, zero());
  return sums[0] + sums[1];
}

template <int Vectors>
inline V greatest_score(const float* scores, long keys) {
  V most = load(scores);
  for (long key = 1; key < keys; key++) most = greater_of(most, load(scores + key * Vectors * W));
  return most;
}

// output[e][lanes] += sum over keys of v[key][e] * weight[key][lanes].
template <int Vectors>
inline void gather_bf16(const Bf16Keys& block, long keys, const Bf16Space& space, const float* weights, QueryState& state) {
#ifdef LONGSPAN_AMX
  for (long e = 0; e < space.columns; e += kAmxSide) {
    const char* a = (const char*)(block.values + e * kKeyBlock);
    float* out = state.output + e * kLanes;
    load_block<true, Vectors == 2>(out, kLanes * 4);
    add_block<false, true, Vectors == 2>(a, 2 * kKeyBlock, (const char*)weights, Vectors * 64, 64, divide_up(keys, kPairKeys),
                                         NothingAhead{});
    store_block<true, Vectors == 2>(out, kLanes * 4);
  }
#else
  alignas(64) float sums[kTileRows * Vectors * W];
  for_row_tiles<kTileRows>(space.size, [&]<int Rows>(long e) {
    const RowMajorOf<int32_t> left{(const int32_t*)(block.values + e * kKeyBlock), kKeyBlock / 2};
    tile<PairTerms, Rows, Vectors>(left, Lines{weights, Vectors * W, kLine}, (keys + 1) / 2, sums, false);
    for (int i = 0; i < Rows; i++)
      for (int j = 0; j < Vectors; j++) {
        float* at = state.output + (e + i) * kLanes + j * W;
        store(at, load(at) + load(sums + (i * Vectors + j) * W));
      }
  });
#endif
}

// What one group of queries sees of a block of keys.
template <int Vectors>
struct Bf16Step {
  const Bf16Keys block;
  const Bf16Space& space;
  const HeadScores& head;
  long key, keys;
  float scale;
  bool change;  // scores are changed for all queries

  // The scores, in base 2 once multiplied with what is returned.
  float score(QueryState& state, float* scores) const {
    score_bf16<Vectors>(block, keys, space, state, scores);
    const bool open = head.open(state, key, key + keys);
    if (!change && open) return scale;
    for (long i = 0; i < keys * Vectors * W; i += W) store(scores + i, load(scores + i) * broadcast(scale));
    change_scores<Vectors>(scores, key, keys, head, state, open);
    return 1.0f;
  }

  // Weights are relative to a reference of each query: the greatest score of the first block that it sees, and of any
  // later one that exceeds it by far. bfloat16 has float32's range, so that nothing is lost, and a query's reference
  // depends on its own scores alone.
  void absorb(QueryState& state) const {
    alignas(64) float scores[kKeyBlock * Vectors * W];
    V sums[Vectors];
    VI moved[Vectors];
    bool some = false;
    float factor = score(state, scores);
    const auto settle = [&](int j) {
      const V reference = state.maximum[j];
      const V most = greater_of(reference, greatest_score<Vectors>(scores + j * W, keys) * broadcast(factor));
      state.maximum[j] = moved[j] ? most : reference;
      const V decay = moved[j] ? exp2(reference - most) : broadcast(1.0f);
      if (!any(reference != broadcast(kUnset))) return;  // nothing has been gathered
      state.denominator[j] *= decay;
      for (long e = 0; e < space.columns; e++) {
        float* at = state.output + e * kLanes + j * W;
        store(at, load(at) * decay);
      }
    };
    for (int j = 0; j < Vectors; j++) {
      moved[j] = state.maximum[j] == broadcast(kUnset);
      if (any(moved[j])) settle(j);
      sums[j] = weigh<Vectors>(scores + j * W, keys, broadcast(factor), state.maximum[j]);
      moved[j] = sums[j] > broadcast(kMostSum);
      some |= any(moved[j]);
    }
    if (some) {
      factor = score(state, scores);
      for (int j = 0; j < Vectors; j++) {
        settle(j);
        sums[j] = weigh<Vectors>(scores + j * W, keys, broadcast(factor), state.maximum[j]);
      }
    }
    for (int j = 0; j < Vectors; j++) state.denominator[j] += sums[j];
    gather_bf16<Vectors>(block, keys, space, scores, state);
  }
};

void bf16_attention(const AttentionArgs& args, long head, long begin, long end, long query0, long query1, float* scratch) {
  const Bf16Space space(args.head_size);
  const OneHead rows = one_head(args, head);
  const HeadScores scores = head_scores(args.scores, head);
#ifdef LONGSPAN_AMX
  const TilesInUse tiles;
#endif
  QueryState states[kGroups];
  int groups = 0;
  for (long query = query0; query < query1; query += kLanes, groups++) {
    float* lines = scratch + groups * space.group_words();
    states[groups] = begin_state(query, min_long(query + kLanes, query1), lines, lines + space.query_words(), space.columns,
                                 args.scores.sinks ? args.scores.sinks + head : nullptr);
    load_query_lines(rows.q, query, states[groups].last - query, space, lines);
  }
  float* const block_at = scratch + kGroups * space.group_words();
  Bf16Block block{(uint16_t*)block_at, (uint16_t*)(block_at + space.block_words())};
  const bool change = args.scores.change();
  const float scale = args.scale * kLog2E;
  each_key_block(scores, states, groups, begin, end, [&](int g, const SeenKeys& seen) {
    block.hold(rows, seen.block, seen.size, space);
    const Bf16Keys part = block.from(seen.skipped());
    if (states[g].vectors == 1) Bf16Step<1>{part, space, scores, seen.first, seen.count, scale, change}.absorb(states[g]);
    else Bf16Step<kLaneVectors>{part, space, scores, seen.first, seen.count, scale, change}.absorb(states[g]);
  });
  for (int g = 0; g < groups; g++) store_state(states[g], args.head_size, args.out, head * args.head_size);
}

#endif

}  // namespace
}  // namespace longspan
