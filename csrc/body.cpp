// The body: token rows. The two schedules are a team of one a pack and a team of all; packs go through the whole program one
// by one, or all of them through a stage before any goes through the next.
#include <algorithm>
#include <atomic>
#include <cstring>

#include "blocks.h"
#include "executor.h"
#include "pack.h"
#include "prepared.h"
#include "threads.h"

namespace longspan {

namespace {

// The instructions of a stage, or of the whole program where nothing goes stage by stage.
struct Range {
  long first, last;

  long size() const { return last - first; }
};

std::vector<Range> ranges_of(const Program& program, bool staged) {
  const long count = static_cast<long>(program.instructions.size());
  if (!staged) return {{0, count}};
  std::vector<Range> ranges;
  for (long step = 0; step < count; step++) {
    if (step == 0 || program.stages[step] != program.stages[step - 1]) ranges.push_back({step, step});
    ranges.back().last = step + 1;
  }
  return ranges;
}

// One run of a batch: what the threads share.
struct Run {
  const Program& program;
  const Batch& batch;
  const Layouts& layouts;
  const Staging* staging;  // null: no stages, with all weights in memory
  const std::vector<Range> ranges;
  const Prepared prepared;
  Poll poll;
  Watch* watches;  // by thread, of the packs that it runs alone; or null
  const std::vector<size_t> carried;  // where each pack's bytes begin in `rows`, if they are staged
  char* rows;
  const long trial_bytes;  // at the end of each lane's tokens: room for a copy of what its pack carries; or 0
  char* token_arena;
  ThreadSpace space;
  long lanes;
  TeamState team;
  std::atomic<long> next_turn;
  std::atomic<long> stop_before{steps() + 1};  // the step of shared packs that nobody starts any more
  std::atomic<long> done{0};      // tokens times instructions
  std::atomic<bool> stop{false};  // nothing of the result is wanted any more
  std::atomic<bool> entered{true};  // whether the stage's weights are there; written before a barrier alone

  // Steps of all packs, each instruction of each being one.
  long steps() const { return batch.packs * static_cast<long>(program.instructions.size()); }

  // Told about tokens, in proportion to the instructions that they are through; `under_way` are not counted in `done` yet.
  bool asked_to_stop(long under_way = 0) {
    return poll.fn && poll.fn(poll.context, (done + under_way) / static_cast<long>(program.instructions.size()));
  }

  void work(int threads, int thread) {
    Team together(threads, thread, &team);
    for (size_t stage = 0; stage < ranges.size(); stage++) {
      if (staging) {
        if (thread == 0) enter(stage);
        team.barrier.wait();
        if (!entered) return;
      }
      if (!shared_packs(ranges[stage], together)) return;
      own_packs(ranges[stage], thread);
      if (staging) {
        team.barrier.wait();
        if (stop) return;
        if (thread == 0 && staging->stream) staging->stream->done(stage);
      }
    }
  }

  // Waits for the weights of a stage.
  void enter(size_t stage) {
    next_turn = batch.shared_packs;
    if (!staging->stream) return;
    while (entered && !staging->stream->wait(stage, std::chrono::milliseconds(50)))
      if (asked_to_stop()) entered = false;
    if (staging->stream->failed()) entered = false;
  }

  Carried carried_by(long pack) const {
    if (!staging) return {};
    return {staging->carried, rows + carried[pack], carried_rows(batch.tokens_of(pack))};
  }

  // The same for a lane, which then works on a copy if nothing is to be written.
  Carried carried_by(long pack, char* lane) const {
    Carried carried = carried_by(pack);
    if (!trial_bytes) return carried;
    char* const copy = lane + layouts.pack.bytes - trial_bytes;
    std::memcpy(copy, carried.base, carried_bytes(batch.tokens_of(pack), staging->row_bytes));
    carried.base = copy;
    return carried;
  }

  // Where a thread is with a pack.
  struct Place {
    Run& run;
    const bool asks;  // the caller's own thread
    const long tokens;
    const long first;  // the number of the step that `step` counts from; of own packs beyond all shared ones
    long step = 0;     // of the range, under way

    Interrupt interrupt() { return {&Place::asked, this}; }

    // All threads finish the step, what is left of it unworked, so that they leave at the same place.
    static bool asked(void* pointer) {
      Place& at = *static_cast<Place*>(pointer);
      Run& run = at.run;
      if (at.asks && !run.stop.load(std::memory_order_relaxed) && run.asked_to_stop(at.tokens * at.step)) {
        run.stop_before = at.first + at.step + 1;
        run.stop = true;
      }
      return run.stop.load(std::memory_order_relaxed);
    }
  };

  // All threads walk the shared packs together. Returns false if told to stop.
  bool shared_packs(Range range, Team& together) {
    for (long turn = 0; turn < batch.shared_packs; turn++) {
      const long pack = batch.pack_order[turn];
      Place at{*this, together.thread() == 0, batch.tokens_of(pack), batch.shared_packs * range.first + turn * range.size()};
      if (at.tokens == 0) continue;  // nothing to do, and some instructions would not even meet at a barrier
      const RunningPack running{program, batch, prepared, pack, together, token_arena, layouts.shared, carried_by(pack), space,
                                nullptr, at.interrupt()};
      for (; at.step < range.size(); at.step++) {
        execute(running, program.instructions[range.first + at.step]);
        if (stop_before.load() <= at.first + at.step + 1) return false;
      }
      if (at.asks) done += at.tokens * range.size();
    }
    return true;
  }

  // Each thread takes packs and runs the stages on them, alone. There are no more lanes in the arena than packs.
  void own_packs(Range range, int thread) {
    if (thread >= lanes) return;
    Team alone(1, 0, nullptr);
    char* tokens = token_arena + thread * layouts.pack.bytes;
    const ThreadSpace own = space.from(thread);
    for (long turn; (turn = next_turn.fetch_add(1)) < batch.packs && !stop.load();) {
      const long pack = batch.pack_order[turn];
      Place at{*this, thread == 0, batch.tokens_of(pack), steps()};
      if (at.tokens == 0) continue;
      const RunningPack running{program, batch, prepared, pack, alone, tokens, layouts.pack, carried_by(pack, tokens), own,
                                watches ? watches + thread : nullptr, at.interrupt()};
      for (; at.step < range.size() && !stop.load(); at.step++) execute(running, program.instructions[range.first + at.step]);
      done += at.tokens * range.size();
      if (at.asks && !stop.load() && asked_to_stop()) stop = true;
    }
  }
};

// The stream reads ahead as long as this lives.
class Reading {
 public:
  explicit Reading(const Staging* staging) : stream_(staging ? staging->stream : nullptr) {
    if (stream_) stream_->begin(staging->kept);
  }
  ~Reading() {
    if (stream_) stream_->end();
  }
  Reading(const Reading&) = delete;
  Reading& operator=(const Reading&) = delete;

 private:
  WeightStream* const stream_;
};

// Where each pack's bytes begin, and the end of all.
std::vector<size_t> carried_offsets(const Batch& batch, const Staging* staging) {
  std::vector<size_t> offsets{0};
  for (long pack = 0; staging && pack < batch.packs; pack++)
    offsets.push_back(offsets.back() + carried_bytes(batch.tokens_of(pack), staging->row_bytes));
  return offsets;
}

// Bytes of the pack that carries most.
long most_carried(const std::vector<size_t>& offsets) {
  size_t most = 0;
  for (size_t pack = 1; pack < offsets.size(); pack++) most = std::max(most, offsets[pack] - offsets[pack - 1]);
  return static_cast<long>(most);
}

}  // namespace

Division Executor::divide(long packs, long shared_packs, const Layouts& layouts, int threads, size_t carried) const {
  const long lanes = std::min<long>(threads, packs - shared_packs);
  const size_t tokens = carried + std::max(shared_packs ? layouts.shared.bytes : 0L, lanes * layouts.pack.bytes);
  const size_t thread = layouts.tile.bytes + scratch_bytes(program_, layouts.tile.rows);
  return {lanes, tokens, thread, tokens + threads * thread};
}

bool Executor::run_body(const Batch& batch, const Layouts& given, int threads, Poll poll, Watch* watches, const Staging* staging) {
  std::vector<size_t> carried = carried_offsets(batch, staging);
  char* const rows = staging ? staging->rows : nullptr;
  const size_t kept = rows ? 0 : carried.back();
  const long trial_bytes = rows && watches ? most_carried(carried) : 0;
  Layouts layouts = given;
  layouts.pack.bytes += trial_bytes;
  const Division arena = divide(batch.packs, batch.shared_packs, layouts, threads, kept);
  arena_.grow(arena.bytes);
  const ThreadSpace space{arena_.data() + arena.tokens, layouts.tile, static_cast<long>(arena.thread)};
  Run run{program_, batch, layouts, staging, ranges_of(program_, staging), prepare(batch), poll, watches,
          std::move(carried), rows ? rows : arena_.data(), trial_bytes, arena_.data() + kept, space, arena.lanes, TeamState(threads),
          {batch.shared_packs}};
  struct Context {
    Run& run;
    int threads;
  } context{run, threads};
  const Reading reading(staging);
  run_on_threads(
      threads,
      [](void* pointer, int thread) {
        Context& context = *static_cast<Context*>(pointer);
        context.run.work(context.threads, thread);
      },
      &context);
  return !run.stop && run.entered;
}

}  // namespace longspan
