// One pack and what runs on it: each instruction over units of work that a team of threads shares out.
#pragma once

#include "executor.h"
#include "prepared.h"
#include "threads.h"

namespace longspan {

// What every thread has for itself: its tile buffers, then scratch (see blocks.h).
struct ThreadSpace {
  char* base;
  const Layout& tile;
  long stride;

  char* of(int thread) const { return base + thread * stride; }
  ThreadSpace from(int thread) const { return {of(thread), tile, stride}; }
};

// What a pack keeps from stage to stage, where it goes stage by stage.
struct Carried {
  const int64_t* places = nullptr;  // see Staging::carried
  char* base = nullptr;
  long rows = 0;

  bool keeps(int buffer) const { return places && places[buffer] >= 0; }
  char* of(int buffer) const { return base + places[buffer] * rows; }
};

// Who is asked before each unit of work that may take long; once the answer is yes, what is left of the pack is left out.
struct Interrupt {
  bool (*fn)(void*);
  void* context;

  bool wanted() const { return fn(context); }
};

// A pack that is being run: which one, where its buffers are, who is at work on it.
struct RunningPack {
  const Program& program;
  const Batch& batch;
  const Prepared& prepared;
  long number;
  Team& team;
  char* tokens;  // the token buffers that it does not carry
  const Layout& layout;
  Carried carried;
  const ThreadSpace& space;
  Watch* watch;  // null: nobody watches
  Interrupt interrupt;
};

// This thread's share of an instruction.
void execute(const RunningPack& pack, const Instruction& instruction);

}  // namespace longspan
