#include "prepared.h"

#include <algorithm>

namespace longspan {

namespace {

// Keys are read, and for some kernels brought into another form, once for all queries of a block. A long segment has
// blocks enough to go round dozens of threads even if they are twice as large.
long queries_at_once(long segment) {
  constexpr long kMost = Kernels::kMostQueries;
  return segment < 8 * kMost ? kMost / 2 : kMost;
}

void add_query_blocks(const Batch& batch, long pack, Prepared& prepared) {
  const long first_row = batch.cu_seqlens[batch.pack_segments[pack]];
  for (long s = batch.pack_segments[pack]; s < batch.pack_segments[pack + 1]; s++) {
    const long begin = batch.cu_seqlens[s] - first_row, end = batch.cu_seqlens[s + 1] - first_row;
    const long block = queries_at_once(end - begin);
    for (long query = begin; query < end; query += block)
      prepared.blocks.push_back({begin, end, query, std::min(query + block, end)});
  }
  prepared.block_offsets.push_back(static_cast<long>(prepared.blocks.size()));
}

// Sorts the partials by the pack that their rows are in.
void assign_partials(const Batch& batch, Prepared& prepared) {
  std::vector<int64_t> last_row(batch.packs);
  for (long pack = 0; pack < batch.packs; pack++) last_row[pack] = batch.cu_seqlens[batch.pack_segments[pack + 1]];
  auto pack_of = [&](int64_t row) { return std::upper_bound(last_row.begin(), last_row.end(), row) - last_row.begin(); };
  std::vector<long>& offsets = prepared.partial_offsets;
  offsets.assign(batch.packs + 1, 0);
  auto each = [&](auto visit) {
    for (size_t pool = 0; pool < batch.partials.size(); pool++)
      for (long p = 0; p < batch.partials[pool].count; p++)
        visit(static_cast<long>(pool), p, pack_of(batch.partials[pool].starts[p]));
  };
  each([&](long, long, long pack) { offsets[pack + 1]++; });
  for (long pack = 0; pack < batch.packs; pack++) offsets[pack + 1] += offsets[pack];
  prepared.partials.resize(offsets.back());
  std::vector<long> next(offsets.begin(), offsets.end() - 1);
  each([&](long pool, long p, long pack) { prepared.partials[next[pack]++] = {pool, p}; });
}

}  // namespace

Prepared prepare(const Batch& batch) {
  Prepared prepared;
  prepared.block_offsets.push_back(0);
  for (long pack = 0; pack < batch.packs; pack++) add_query_blocks(batch, pack, prepared);
  assign_partials(batch, prepared);
  return prepared;
}

}  // namespace longspan
