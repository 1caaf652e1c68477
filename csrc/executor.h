// Runs a program on packed tokens. No Python, no exceptions and no allocation inside the threads; before they start, a run
// grows the arena where it is too small, and lists its packs, blocks and partials anew.
#pragma once

#include <atomic>
#include <vector>

#include "memory.h"
#include "program.h"
#include "watch.h"
#include "weight_stream.h"

namespace longspan {

// What one `pool` or `combine` reads of the batch; see batch.Partials.
struct Partials {
  const int64_t *starts, *ends;
  const float *first_weight, *weight_step;
  long count;
  float* data;  // [count, width]: written by `pool`, read by `combine`
};

// Byte offsets of the buffers in an arena, by buffer index, for `rows` rows at most.
struct Layout {
  const int64_t* offsets;
  long bytes;
  long rows;
};

struct Layouts {
  Layout pack;    // token buffers of a pack that one thread runs
  Layout shared;  // token buffers of a pack that all threads run together
  Layout tile;    // tile buffers, one set a thread
};

// How packs go through a program stage by stage, all of them through one before any through the next. What lives from stage
// to stage is then every pack's own; the layouts hold the rest.
struct Staging {
  const int64_t* carried;  // by buffer: bytes of a row before it in what its pack keeps, or -1 if it is not kept
  long row_bytes;          // of a row of all that
  char* rows;              // what packs bring from the stages before this program and keep for those after it; null: nothing
  WeightStream* stream;    // null: all weights are in memory
  long kept;               // stages whose weights stay there
};

// Sines and cosines for one kind of rotary positions; see RopeTable in program/rope.py.
struct RopeTable {
  const int32_t* rows;  // [tokens]
  const float* values;
};

struct Batch {
  const int32_t *ids, *positions;
  const int64_t* cu_seqlens;  // [segments + 1]
  long segments;
  const int64_t* pack_segments;  // [packs + 1] segment offsets of the packs
  const int64_t* pack_order;     // [packs] the order in which packs are taken
  long packs;
  long shared_packs;  // the first of that order, which all threads run together; each of the others is one thread's
  int task;           // whose low-rank pairs are added, or kNone
  std::vector<Partials> partials;
  std::vector<RopeTable> ropes;       // by Qkv::rope
  std::vector<const float*> q_scales;  // by Qkv::q_scale, [tokens] each
  std::atomic<bool>* rows_missing = nullptr;  // set where a file has not any more what it had; needed where tables are files

  long tokens_of(long pack) const { return cu_seqlens[pack_segments[pack + 1]] - cu_seqlens[pack_segments[pack]]; }
};

// Asked now and then by the calling thread with the number of tokens done; true means stop.
struct Poll {
  bool (*fn)(void*, long tokens) = nullptr;
  void* context = nullptr;
};

// Rows of what a pack of so many tokens keeps from stage to stage: each of its buffers begins at a cache line.
inline long carried_rows(long tokens) { return round_up(tokens, kLineBytes); }
inline size_t carried_bytes(long tokens, long row_bytes) { return static_cast<size_t>(carried_rows(tokens) * row_bytes); }

// How the arena of a body is divided: what packs carry, token buffers for every lane, then what each thread has for itself.
struct Division {
  long lanes;     // threads that run packs of their own
  size_t tokens;  // bytes of all token buffers
  size_t thread;  // bytes of one thread's tile buffers and scratch
  size_t bytes;   // all of it
};

class Executor {
 public:
  explicit Executor(const Program& program) : program_(program) {}

  // The arena that `run_body` takes for so many packs, which carry so many bytes.
  Division divide(long packs, long shared_packs, const Layouts& layouts, int threads, size_t carried) const;

  // Bytes of the arena as it is now.
  size_t arena_bytes() const { return arena_.bytes(); }

  // Gives the arena back; the next run makes a new one.
  void drop_arena() { arena_.release(); }

  // Fills batch.partials[i].data. Returns false if the poll asked to stop, or the stream has an error. Watches, one a thread
  // and prepared, or null, see the packs that threads run by themselves; these then write nothing to `Staging::rows`. Without staging,
  // packs go through the whole program one by one, with all weights in memory.
  bool run_body(const Batch& batch, const Layouts& layouts, int threads, Poll poll, Watch* watches, const Staging* staging);

  // vectors [count, width of the last instruction's output], from partials[i].data; cu_vectors[i] is [count + 1].
  void run_tail(const std::vector<Partials>& partials, const std::vector<const int64_t*>& cu_vectors, long count,
                const Layout& layout, int threads, float* vectors);

 private:
  const Program& program_;
  Mapping arena_;
};

}  // namespace longspan
