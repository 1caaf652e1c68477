// What a run needs to know of its batch beyond the batch itself: where the queries and the partials of each pack lie.
#pragma once
#include <cstdint>
#include <vector>

#include "executor.h"

namespace longspan {

struct QueryBlock {
  long begin, end;      // the segment, as rows of the pack
  long query0, query1;  // the queries, as rows of the pack
};

// A pack's share of the batch, with row numbers that start at the pack.
struct Pack {
  const int32_t *ids, *positions;
  long first_row, tokens;
  const QueryBlock* blocks;
  long block_count;
};

struct PartialOfPack {
  long pool, partial;
};

// Everything about a batch that is computed once, before the threads start.
struct Prepared {
  std::vector<QueryBlock> blocks;
  std::vector<long> block_offsets;  // [packs + 1]
  std::vector<PartialOfPack> partials;
  std::vector<long> partial_offsets;  // [packs + 1]
};

Prepared prepare(const Batch& batch);

}  // namespace longspan
