// self_extend: attention that turns queries and keys by itself, each pair by one of three relative positions.
//
// Keys nearer than `near` have their true positions, farther ones those of their group, moved away from the query to
// either side. A query is turned once for each of the three, a block of keys once for near queries and once for far ones,
// if there are any. Only blocks that straddle a border are scored more than once; then each score is taken from the
// product that its distance asks for, so that no bit depends on the neighbours.
#pragma once

#include "attention.h"
#include "heads.h"

namespace longspan {
namespace {

enum Way { kNear, kBefore, kAfter };  // where a key lies for its query
constexpr Way kEveryWay[] = {kNear, kBefore, kAfter};
constexpr int kWays = 3;

// Rows [first, first + count) of one head, turned as at the positions place(row), which are rows of the table.
template <class Place>
inline void turn_rows(const TurnArgs& turn, const float* rows, long first, long count, long size, Place place, float* out) {
  const long half = turn.size / 2;
  for (long row = first; row < first + count; row++, out += size) {
    __builtin_memcpy(out, rows + row * size, size * sizeof(float));
    const float* cosines = turn.table + place(row) * turn.size;
    (turn.interleaved ? turn_neighbours : turn_halves)(out, cosines, cosines + half, half);
  }
}

// The positions of a segment's rows. Far keys are all moved by `shift`, so that no position is negative.
struct Places {
  long begin, group, near, shift;
  bool seen[kWays];  // whether a query sees any such key

  Places(const AttentionArgs& args, long begin, long end)
      : begin(begin), group(args.turn.group), near(end - begin > args.turn.original ? args.turn.near : ScoreArgs::kUnlimited),
        shift(args.turn.near - args.turn.near / args.turn.group),
        seen{true, end - begin > near && args.scores.left >= near, end - begin > near && args.scores.right >= near} {}

  long of_query(Way way, long row) const {
    const long position = row - begin;
    return way == kNear ? position : position / group + (way == kBefore ? 2 * shift : 0);
  }
  long of_key(bool far, long row) const { return far ? (row - begin) / group + shift : row - begin; }

  // Whether some of the pairs of queries with keys [key, key + keys) are of this kind, and seen.
  bool some(Way way, const QueryState& state, long key, long keys) const {
    if (!seen[way]) return false;
    const long least = state.first - (key + keys - 1), most = state.last - 1 - key;  // query - key
    if (way == kNear) return most > -near && least < near;
    return way == kBefore ? most >= near : least <= -near;
  }
};

// One block of keys, turned when it is first asked for.
struct TurnedKeys {
  float* blocks[2];  // near, far
  long keys[2];      // which block they hold

  const float* get(bool far, const AttentionArgs& args, const Places& places, const float* k, long key, long count) {
    if (keys[far] != key) {
      turn_rows(args.turn, k, key, count, args.head_size, [&](long row) { return places.of_key(far, row); }, blocks[far]);
      keys[far] = key;
    }
    return blocks[far];
  }
};

// Takes from `other` the scores of the pairs that are of one kind.
template <int Vectors>
inline void take_scores(float* scores, const float* other, Way way, long near, long key, long keys, const QueryState& state) {
  const V lanes = lane_numbers(), bound = broadcast((float)near);
  for (long i = 0; i < keys; i++)
    for (int j = 0; j < Vectors; j++) {
      const long at = (i * Vectors + j) * W;
      const V distance = broadcast((float)(state.first + j * W - (key + i))) + lanes;
      const V s = load(scores + at), t = load(other + at);
      store(scores + at, way == kBefore ? (distance < bound ? s : t) : (distance > -bound ? s : t));
    }
}

// The scores of keys `key`.. with queries that `lanes` holds turned in every way.
template <int Vectors>
inline void score_by_distance(const AttentionArgs& args, const Places& places, TurnedKeys& turned, const float* k, long key,
                              long keys, float* const (&lanes)[kWays], QueryState& state, float* scores) {
  alignas(64) float other[kKeyBlock * Vectors * W];
  bool scored = false;
  for (Way way : kEveryWay) {
    if (!places.some(way, state, key, keys)) continue;
    state.query = lanes[way];
    score<Vectors>(turned.get(way != kNear, args, places, k, key, keys), keys, args.head_size, state, scored ? other : scores);
    if (scored) take_scores<Vectors>(scores, other, way, places.near, key, keys, state);
    scored = true;
  }
}

void self_extend(const AttentionArgs& args, long head, long begin, long end, long query0, long query1, float* scratch) {
  const long size = args.head_size, block = size * kLanes;
  const OneHead rows = one_head(args, head);
  const float *q = rows.q.data, *k = rows.k.data, *v = rows.v.data;
  const HeadScores scores = head_scores(args.scores, head);
  const Places places(args, begin, end);
  float* const keys_at = scratch + (kWays + 1) * kGroups * block;
  QueryState states[kGroups];
  float* lanes[kGroups][kWays];
  int groups = 0;
  for (long query = query0; query < query1; query += kLanes, groups++) {
    float* own = scratch + (kWays + 1) * groups * block;
    states[groups] = begin_state(query, min_long(query + kLanes, query1), nullptr, own + kWays * block, size,
                                 args.scores.sinks ? args.scores.sinks + head : nullptr);
    const long count = states[groups].last - query;
    for (Way way : kEveryWay) {
      lanes[groups][way] = own + way * block;
      if (!places.seen[way]) continue;
      turn_rows(args.turn, q, query, count, size, [&](long row) { return places.of_query(way, row); }, keys_at);
      load_lanes({keys_at, size}, 0, count, size, args.scale * kLog2E, lanes[groups][way]);
    }
  }
  TurnedKeys turned{{keys_at, keys_at + kKeyBlock * size}, {-1, -1}};
  const auto attend = [&]<int Vectors>(int g, long key, long keys) {
    alignas(64) float found[kKeyBlock * Vectors * W];
    score_by_distance<Vectors>(args, places, turned, k, key, keys, lanes[g], states[g], found);
    absorb<Vectors>(found, v + key * size, key, keys, size, scores, args.scores.change(), states[g]);
  };
  // Whole blocks: their keys are turned for all groups.
  each_key_block(scores, states, groups, begin, end, [&](int g, const SeenKeys& seen) {
    if (states[g].vectors == 1) attend.template operator()<1>(g, seen.block, seen.size);
    else attend.template operator()<kLaneVectors>(g, seen.block, seen.size);
  });
  for (int g = 0; g < groups; g++) store_state(states[g], size, args.out, head * size);
}

}  // namespace
}  // namespace longspan
