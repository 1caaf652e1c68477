// attention over bytes: q k^T and the values' sums in integers, everything between them in float32.
//
// Each query has a scale of its own, and so has each key and each value, within a block of keys. Keys are rounded as
// what is left of them without the block's mean, whose scores are added exactly: that a column is large in all keys then
// costs nothing (Zhang et al., 2024, arXiv 2410.02367, subtract the mean of all keys). A value's scale goes into its key's
// weight before that is rounded, relative to the greatest of the block, so that a weight is as exact as it matters.
#pragma once

#include "attention.h"

namespace longspan {
namespace {

// The signed bytes of the left operand times the unsigned ones of the right.
struct SignedTerms : Int8Terms {
  static VI add(VI sum, VI left, VI right) { return dot4(sum, right, left); }
};

constexpr long kBytes = 4;  // in a word
static_assert(kKeyStep % kBytes == 0);
constexpr float kMostWeight = 255.0f, kLog2MostWeight = 7.994353436858858f;
constexpr float kLeastScale = 1e-30f;

// The places in a unit's scratch, in words.
struct Int8Space {
  long size;  // of a head, a multiple of 8
  explicit constexpr Int8Space(long head_size) : size(head_size) {}

  constexpr long line_words() const { return size / kBytes * kLanes; }
  constexpr long lane_words() const { return size * kLanes; }
  constexpr long group_words() const { return line_words() + 2 * lane_words() + kLanes; }
  constexpr long block_words() const { return kKeyBlock * size / kBytes; }
  constexpr long bytes() const { return (kGroups * group_words() + 2 * block_words() + size + W * size) * 4; }
};

// A group of queries: QueryState::query in float32, and the same rounded.
struct Int8Queries {
  float* lines;   // [size / 4][kLanes] words of codes, 128 among them for zero
  float* scales;  // [kLanes]
};

// The larger magnitude; once infinite or NaN, always so: the bits of positive numbers have their order.
inline V greater_magnitude(V most, V x) {
  const VI bits = (VI)magnitude(x);
  return (V)(bits > (VI)most ? bits : (VI)most);
}

inline VI code_of(V v, V inverse, float zero_code) { return (VI)fma(v, inverse, broadcast(kMagic + zero_code)) & 0xff; }

// Rounds the queries in the lanes of `state`. A query with a NaN or an infinity has the scale NaN or infinity.
inline void round_queries(const QueryState& state, const Int8Space& space, Int8Queries out) {
  for (int j = 0; j < state.vectors; j++) {
    const auto query = [&](long e) { return load(state.query + e * kLanes + j * W); };
    V most = zero();
    for (long e = 0; e < space.size; e++) most = greater_magnitude(most, query(e));
    const V scale = at_least(most * broadcast(1.0f / 127), kLeastScale), inverse = broadcast(1.0f) / scale;
    store(out.scales + j * W, scale);
    for (long e = 0; e < space.size; e += kBytes) {
      VI word{};
      for (int i = 0; i < kBytes; i++) word |= code_of(query(e + i), inverse, 128) << 8 * i;
      store(out.lines + e / kBytes * kLanes + j * W, (V)word);
    }
  }
}

// Keys and values of a block as bytes, and what they are worth, from one of the block's keys on.
struct Int8Keys {
  const int8_t* keys;     // [keys][size]
  const int32_t* values;  // [keys / 4][size]: four keys in a word
  const float* mean;      // of the block's keys, [size]
  const float* key_scales;
  const float* key_offsets;  // what the queries' codes for zero add to a score, negated
  const float* value_logs;   // of the scales, to base 2
  const float* value_inverses;
};

// The keys and values of one block.
class Int8Block {
 public:
  Int8Block(float* scratch, const Int8Space& space)
      : keys_((int8_t*)scratch), values_((int32_t*)(scratch + space.block_words())), mean_(scratch + 2 * space.block_words()),
        rests_(mean_ + space.size), space_(space) {}

  // `skipped` is a multiple of kKeyStep.
  Int8Keys from(long skipped) const {
    return {keys_ + skipped * space_.size, values_ + skipped / kBytes * space_.size, mean_,
            key_scales_ + skipped, key_offsets_ + skipped, value_logs_ + skipped, value_inverses_ + skipped};
  }

  void hold(const OneHead& rows, long key, long count) {
    if (held_ == key) return;
    held_ = key;
    average(rows.k.from(key), count);
    for (long i = 0; i < count; i += W) round_keys(rows.k.from(key + i), i, min_long(W, count - i));
    scale_values(rows.v.from(key), count);
    for (long i = 0; i < count; i += kBytes) round_values(rows.v.from(key + i), i, (int)min_long(kBytes, count - i));
  }

 private:
  int8_t* const keys_;
  int32_t* const values_;
  float* const mean_;
  alignas(64) float key_scales_[kKeyBlock];
  alignas(64) float key_offsets_[kKeyBlock];
  alignas(64) float value_logs_[kKeyBlock];
  alignas(64) float value_inverses_[kKeyBlock];
  long held_ = -1;
  float* const rests_;  // of W keys without the mean, [W][size]
  const Int8Space space_;

  template <class Take>
  void each_part(Take take) const {
    for (long e = 0; e < space_.size; e += W) take(e, (int)min_long(W, space_.size - e));
  }

  void average(Matrix k, long count) {
    const V share = broadcast(1.0f / (float)count);
    long e = 0;
    if (k.bf16)
      for (; e + 2 * W <= space_.size; e += 2 * W) {
        V even = zero(), odd = zero();
        for (long i = 0; i < count; i++) {
          const Bf16Pairs pairs(k.bf16_row(i) + e);
          even += pairs.even;
          odd += pairs.odd;
        }
        store_in_turn(mean_ + e, even * share, odd * share);
      }
    for (; e < space_.size; e += W) {
      const int n = (int)min_long(W, space_.size - e);
      V sum = zero();
      for (long i = 0; i < count; i++) sum += load_from(k, i, e, n);
      store_some(mean_ + e, sum * share, n);
    }
  }

  // Keys `first`.. of the block, W at most.
  void round_keys(Matrix k, long first, long count) {
    V parts[W] = {};
    for (long i = 0; i < count; i++)
      each_part([&](long e, int n) {
        const V rest = load_from(k, i, e, n) - load_some(mean_ + e, n);
        parts[i] = greater_magnitude(parts[i], rest);
        store_some(rests_ + i * space_.size + e, rest, n);
      });
    const V scale = at_least(join_each(parts, greater_magnitude) * broadcast(1.0f / 127), kLeastScale);
    alignas(64) float inverses[W];
    store(inverses, broadcast(1.0f) / scale);
    for (long i = 0; i < count; i++) {
      parts[i] = zero();
      each_part([&](long e, int n) {
        const V shifted = fma(load_some(rests_ + i * space_.size + e, n), broadcast(inverses[i]), broadcast(kMagic));
        store_some_bytes((uint8_t*)keys_ + (first + i) * space_.size + e, (VI)shifted, n);
        parts[i] += shifted - broadcast(kMagic);
      });
    }
    const V total = join_each(parts, [](V a, V b) { return a + b; });
    store(key_scales_ + first, scale);
    store(key_offsets_ + first, broadcast(-128.0f) * total * scale);
  }

  // The largest magnitudes of a row, to be joined.
  V reach_of(Matrix row) const {
    V most = zero();
    long e = 0;
    if (row.bf16)
      for (; e + 2 * W <= space_.size; e += 2 * W) {
        const Bf16Pairs pairs(row.bf16_row(0) + e);
        most = greater_magnitude(greater_magnitude(most, pairs.even), pairs.odd);
      }
    for (; e < space_.size; e += W) most = greater_magnitude(most, load_from(row, 0, e, (int)min_long(W, space_.size - e)));
    return most;
  }

  // Scales by Mitchell's logarithm, which is too small by 0.0861 at most. Values that are tiny beside the block's others
  // have a coarser one, so that its inverse stays within range.
  void scale_values(Matrix v, long count) {
    V most[kKeyBlock / W], most_of_all = zero();
    for (long first = 0; first < count; first += W) {
      V parts[W] = {};
      for (long i = first; i < min_long(first + W, count); i++) parts[i - first] = reach_of(v.from(i));
      most[first / W] = join_each(parts, greater_magnitude);
      most_of_all = greater_of(most_of_all, most[first / W]);
    }
    const float least = greatest(max_lanes(most_of_all) * 0x1p-24f, kLeastScale);
    for (long first = 0; first < count; first += W) {
      const V reach = most[first / W];
      const V bits = __builtin_convertvector((VI)at_least(reach * broadcast(1.0f / 127), least), V);
      const V log = fma(bits, broadcast(0x1p-23f), broadcast(-127 + 0.0861f));
      store(value_logs_ + first, fma(reach, zero(), log));  // NaN where a value is infinite or NaN
      store(value_inverses_ + first, exp2(-log));
    }
  }

  // Values `first`.. of the block, those of a word at most.
  void round_values(Matrix v, long first, int count) {
    int32_t* const line = values_ + first / kBytes * space_.size;
    each_part([&](long e, int n) {
      VI word{};
      for (int b = 0; b < count; b++) word |= code_of(load_from(v, b, e, n), broadcast(value_inverses_[first + b]), 0) << 8 * b;
      store_some((float*)line + e, (V)word, n);
    });
  }
};

// 2^x, relative error 2e-3: for what is rounded to a byte. The polynomial is the minimax fit of 2^f on [0, 1].
inline V byte_exp2(V x) {
#ifdef LONGSPAN_AVX512
  constexpr int kDown = 9;  // round towards minus infinity, no exceptions
  const V f = (V)_mm512_reduce_ps((__m512)x, kDown);
  const V p = fma(fma(broadcast(3.37189435e-01f), f, broadcast(6.57636276e-01f)), f, broadcast(1.00172476f));
  return (V)_mm512_scalef_ps((__m512)p, (__m512)x);
#else
  return exp2(x);
#endif
}

// What one group of queries sees of a block of keys.
template <int Vectors>
struct Int8Step {
  const Int8Keys block;
  const Int8Space& space;
  const HeadScores& head;
  const Int8Queries& queries;
  long key, keys;
  bool change;  // scores are changed for all queries

  void absorb(QueryState& state) const {
    alignas(64) float scores[kKeyBlock * Vectors * W];
    V weights[Vectors], decay[Vectors];
    multiply(scores);
    const bool open = head.open(state, key, key + keys), whole = !change && open;
    if (!whole) finish_scores(state, scores, open);
    for (int j = 0; j < Vectors; j++) {
      const V mean_score = score_of_mean(state, j);
      const V top = whole ? top_of_sums(scores + j * W, j) : top_of_scores(scores + j * W);
      const V sum = weigh(scores + j * W, top - broadcast(kLog2MostWeight));
      const V reference = whole ? top + mean_score : top, before = state.maximum[j];
      state.maximum[j] = greater_of(before, reference);
      decay[j] = exp2(before - state.maximum[j]);
      weights[j] = exp2(reference - state.maximum[j]) * broadcast(1.0f / kMostWeight);
      state.denominator[j] = fma(state.denominator[j], decay[j], sum * weights[j]);
    }
    gather(scores, decay, weights, state);
  }

 private:
  static constexpr long kRow = Vectors * W;

  // sums[key][lanes] of codes.
  void multiply(float* sums) const {
    const Lines right{queries.lines, kLanes, kLine};
    const long words = space.size / kBytes;
    for_row_tiles<kTileRows>(keys, [&]<int Rows>(long row) {
      const RowMajorOf<int32_t> left{(const int32_t*)block.keys + row * words, words};
      tile<SignedTerms, Rows, Vectors>(left, right, words, sums + row * kRow, false);
    });
  }

  // What the mean of the block's keys scores.
  V score_of_mean(const QueryState& state, int j) const {
    constexpr int kChains = 4;  // a head size is a multiple of it
    V sums[kChains] = {};
    for (long e = 0; e < space.size; e += kChains)
      for (int i = 0; i < kChains; i++)
        sums[i] = fma(load(state.query + (e + i) * kLanes + j * W), broadcast(block.mean[e + i]), sums[i]);
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
  }

  // A sum of codes as a score without that of the mean, times the query's scale, plus `added`.
  V score(const float* sum, long i, V scale, V added) const {
    const V codes = __builtin_convertvector((VI)load(sum), V);
    return fma(fma(codes, broadcast(block.key_scales[i]), broadcast(block.key_offsets[i])), scale, added);
  }

  // Sums become scores with soft cap, bias and mask, in place.
  void finish_scores(const QueryState& state, float* scores, bool open) const {
    for (int j = 0; j < Vectors; j++) {
      const V scale = load(queries.scales + j * W), mean_score = score_of_mean(state, j);
      for (long i = 0; i < keys; i++) {
        float* at = scores + i * kRow + j * W;
        store(at, score(at, i, scale, mean_score));
      }
    }
    change_scores<Vectors>(scores, key, keys, head, state, open);
  }

  // The logarithms of the values' scales are added, in place; the greatest of what comes of it. `finish` makes a score.
  template <class Finish>
  V top_of(float* scores, Finish finish) const {
    constexpr int kChains = 4;
    V tops[kChains] = {broadcast(kUnset), broadcast(kUnset), broadcast(kUnset), broadcast(kUnset)};
    const auto take = [&](long i, V& top) {
      const V s = finish(scores + i * kRow, i, broadcast(block.value_logs[i]));
      store(scores + i * kRow, s);
      top = greater_of(top, s);
    };
    long i = 0;
    for (; i + kChains <= keys; i += kChains)
      for (int chain = 0; chain < kChains; chain++) take(i + chain, tops[chain]);
    for (; i < keys; i++) take(i, tops[0]);
    return greater_of(greater_of(tops[0], tops[1]), greater_of(tops[2], tops[3]));
  }

  V top_of_sums(float* sums, int j) const {
    const V scale = load(queries.scales + j * W);
    return top_of(sums, [&](const float* at, long i, V added) { return score(at, i, scale, added); });
  }

  V top_of_scores(float* scores) const {
    return top_of(scores, [](const float* at, long, V added) { return load(at) + added; });
  }

  // Scores become lines of bytes 2^(score - reference), in place. Returns the sum of these, unrounded, each divided by
  // its value's scale.
  V weigh(float* scores, V reference) const {
    V sums[2] = {zero(), zero()};
    const auto line = [&](long first, int count) {
      VI bytes[kBytes] = {};
      for (int b = 0; b < count; b++) {
        const V p = byte_exp2(load(scores + (first + b) * kRow) - reference);
        sums[b % 2] = fma(p, broadcast(block.value_inverses[first + b]), sums[b % 2]);
        bytes[b] = to_integers(p);
      }
      store(scores + first / kBytes * kRow, (V)join_bytes(bytes[0], bytes[1], bytes[2], bytes[3]));
    };
    long first = 0;
    for (; first + kBytes <= keys; first += kBytes) line(first, kBytes);
    if (first < keys) line(first, (int)(keys - first));
    return sums[0] + sums[1];
  }

  // output[e][lanes] = output * decay + weight * sum over keys of v[key][e] * weight[key][lanes].
  void gather(const float* lines, const V (&decay)[Vectors], const V (&weights)[Vectors], QueryState& state) const {
    alignas(64) float sums[kTileRows * kRow];
    for_row_tiles<kTileRows>(space.size, [&]<int Rows>(long e) {
      const ColumnMajorOf<int32_t> left{block.values + e, space.size};
      tile<SignedTerms, Rows, Vectors>(left, Lines{lines, kRow, kLine}, divide_up(keys, kBytes), sums, false);
      for (int i = 0; i < Rows; i++)
        for (int j = 0; j < Vectors; j++) {
          float* at = state.output + (e + i) * kLanes + j * W;
          const V sum = __builtin_convertvector((VI)load(sums + i * kRow + j * W), V);
          store(at, fma(load(at), decay[j], sum * weights[j]));
        }
    });
  }
};

void int8_attention(const AttentionArgs& args, long head, long begin, long end, long query0, long query1, float* scratch) {
  const Int8Space space(args.head_size);
  const OneHead rows = one_head(args, head);
  const HeadScores scores = head_scores(args.scores, head);
  QueryState states[kGroups];
  Int8Queries queries[kGroups];
  int groups = 0;
  for (long query = query0; query < query1; query += kLanes, groups++) {
    float* const lanes = scratch + groups * space.group_words();
    float* const output = lanes + space.lane_words();
    states[groups] = begin_state(query, min_long(query + kLanes, query1), lanes, output, space.size,
                                 args.scores.sinks ? args.scores.sinks + head : nullptr);
    queries[groups] = {output + space.lane_words(), output + space.lane_words() + space.line_words()};
    load_lanes(rows.q, query, states[groups].last - query, space.size, args.scale * kLog2E, lanes);
    round_queries(states[groups], space, queries[groups]);
  }
  Int8Block block(scratch + kGroups * space.group_words(), space);
  const bool change = args.scores.change();
  each_key_block(scores, states, groups, begin, end, [&](int g, const SeenKeys& seen) {
    block.hold(rows, seen.block, seen.size);
    const Int8Keys part = block.from(seen.skipped());
    if (states[g].vectors == 1) Int8Step<1>{part, space, scores, queries[g], seen.first, seen.count, change}.absorb(states[g]);
    else Int8Step<kLaneVectors>{part, space, scores, queries[g], seen.first, seen.count, change}.absorb(states[g]);
  });
  for (int g = 0; g < groups; g++) store_state(states[g], space.size, args.out, head * space.size);
}

}  // namespace
}  // namespace longspan
