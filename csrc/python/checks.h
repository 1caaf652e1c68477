// Whether what Python hands over fits a program: a batch, its layouts, a stream, partials of a tail.
#pragma once

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "batch.h"
#include "reject.h"

namespace longspan {

inline void check_embedding(const Batch& batch, long tokens, const Program& program) {
  for (const Instruction& instruction : program.instructions)
    if (const Embed* op = std::get_if<Embed>(&instruction)) {
      check_rows(batch.ids, tokens, 0, op->tokens, "token id");
      check_rows(batch.positions, tokens, op->position_offset, op->positions, "position");
    }
}

inline void add_positions(Batch& batch, const BatchArrays& arrays, long tokens, const Program& program) {
  const std::vector<RopeArrays>& ropes = arrays.ropes;
  for (const RopeArrays& rope : ropes) batch.ropes.push_back(view_rope(rope, tokens));
  for (const Floats& factors : arrays.q_scales) {
    if (factors.size() != tokens) reject("queries need a factor for every token");
    batch.q_scales.push_back(factors.data());
  }
  const auto check_rope = [&](int rope, long size, long positions) {
    if (rope == kNone) return;
    if (rope >= static_cast<int>(ropes.size()) || ropes[rope].values.shape(1) != size || ropes[rope].values.shape(0) < positions)
      reject("the batch lacks rotary positions");
  };
  long longest = 0;
  for (long s = 0; s < batch.segments; s++) longest = std::max<long>(longest, batch.cu_seqlens[s + 1] - batch.cu_seqlens[s]);
  for (const Instruction& instruction : program.instructions) {
    if (const Attention* op = std::get_if<Attention>(&instruction)) check_rope(op->rope, op->turn.size, longest);
    if (const Qkv* op = std::get_if<Qkv>(&instruction)) {
      check_rope(op->rope, op->rope_size, 0);
      if (op->q_scale != kNone && op->q_scale >= static_cast<int>(batch.q_scales.size())) reject("qkv: the batch lacks its factors");
    }
  }
}

// All of a batch but its partials.
inline Batch view_batch(const BatchArrays& arrays, const PackArrays& packs, const Program& program) {
  const long tokens = static_cast<long>(arrays.ids.size()), segments = static_cast<long>(arrays.cu_seqlens.size()) - 1;
  if (arrays.positions.size() != tokens) reject("ids and positions differ in length");
  check_offsets(arrays.cu_seqlens, "cu_seqlens", tokens);
  check_offsets(packs.segments, "pack_segments", segments);
  const long count = static_cast<long>(packs.segments.size()) - 1;
  check_order(packs.order, count);
  if (packs.shared < 0 || packs.shared > count) reject("shared_packs is out of range");
  const int task = arrays.task;
  if (task != kNone && (task < 0 || task >= program.tasks)) reject("there is no task " + std::to_string(task));
  Batch batch{arrays.ids.data(), arrays.positions.data(), arrays.cu_seqlens.data(), segments, packs.segments.data(),
              packs.order.data(), count, packs.shared, task, {}, {}, {}};
  check_embedding(batch, tokens, program);
  add_positions(batch, arrays, tokens, program);
  return batch;
}

// The layouts of a body, in which every pack of the batch has room.
inline Layouts view_layouts(const BodyLayoutArrays& arrays, const Batch& batch, const Program& program, const int64_t* carried) {
  const std::vector<Buffer>& buffers = program.buffers;
  const Layouts layouts{view_layout(arrays.pack, buffers, Rows::tokens, carried),
                        view_layout(arrays.shared, buffers, Rows::tokens, carried),
                        view_layout(arrays.tile, buffers, Rows::tile)};
  if (arrays.tile.rows < 1) reject("a tile has rows");
  for (long turn = 0; turn < batch.packs; turn++) {
    const Layout& layout = turn < batch.shared_packs ? layouts.shared : layouts.pack;
    if (batch.tokens_of(batch.pack_order[turn]) > layout.rows) reject("a pack is larger than the arena was laid out for");
  }
  return layouts;
}

inline Staging view_staging(const StagingArrays& arrays, const Batch& batch, const Program& program, bool watching) {
  const std::set<long> stages(program.stages.begin(), program.stages.end());
  if (arrays.stream && arrays.stream->stages() != stages.size()) reject("the stream has another number of stages than the program");
  if (arrays.kept < 0) reject("there are no such stages to keep");
  if (arrays.rows && watching && batch.shared_packs) reject("what all threads share is not watched");
  const int64_t* carried = view_carried(arrays.carried, program.buffers);
  return {carried, arrays.carried.row_bytes, arrays.rows ? view_rows(*arrays.rows, batch, arrays.carried.row_bytes) : nullptr,
          arrays.stream, arrays.kept};
}

inline void check_combines(const std::vector<Floats>& data, const std::vector<Partials>& views, const Program& program) {
  for (const Instruction& instruction : program.instructions)
    if (const Combine* op = std::get_if<Combine>(&instruction)) {
      if (op->index < 0 || op->index >= static_cast<int>(data.size())) reject("combine: no such partials");
      const Floats& array = data[op->index];
      if (array.ndim() != 2 || array.shape(0) != views[op->index].count || array.shape(1) != program.width(op->partials))
        reject("combine: the partials have the wrong shape");
    }
}

}  // namespace longspan
