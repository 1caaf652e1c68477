// One pool of threads per process, and the team that walks a program together.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

namespace longspan {

// Runs fn(context, thread) for thread = 0 .. threads - 1, thread 0 being the caller, and returns when all are done.
// Callers take turns. The pool starts on first use and is rebuilt in a forked child.
void run_on_threads(int threads, void (*fn)(void*, int), void* context);

// How often fork() has made this process a child; a lock taken before a fork may never be released after it.
uint64_t fork_generation();

// A mutex that a forked child may take although the parent held it at the fork: the child makes itself a new one.
class ForkSafeMutex {
 public:
  ForkSafeMutex() : current_(new State) {}
  ~ForkSafeMutex() { delete current_.load(); }
  void lock();
  void unlock() { held_->mutex.unlock(); }

 private:
  struct State {
    std::mutex mutex;
    const uint64_t generation = fork_generation();
  };

  std::atomic<State*> current_;
  State* held_ = nullptr;  // written and read by the holder only
};

// The floating-point control word of the calling thread, where the machine has one.
unsigned long float_control();
void set_float_control(unsigned long control);

// While it lives, the calling thread rounds to the nearest, takes denormals as zero and raises no exceptions, whatever the
// host program has set: the same bits everywhere.
class FloatMode {
 public:
  FloatMode();
  ~FloatMode() { set_float_control(saved_); }
  FloatMode(const FloatMode&) = delete;
  FloatMode& operator=(const FloatMode&) = delete;

 private:
  const unsigned long saved_;
};

// Waits until all `size` threads have arrived: spins briefly, then sleeps in the kernel.
class Barrier {
 public:
  explicit Barrier(int size) : size_(size) {}
  void wait();

 private:
  const int size_;
  std::atomic<int> arrived_{0};
  std::atomic<uint32_t> round_{0};
};

// What the threads of a team share.
struct TeamState {
  explicit TeamState(int size) : barrier(size) {}

  Barrier barrier;
  std::atomic<long> next[3] = {0, 0, 0};
};

// One thread's view of the threads that run a program together. A team of one has no state and no barriers.
class Team {
 public:
  Team(int size, int thread, TeamState* state) : size_(size), thread_(thread), state_(state) {}

  int size() const { return size_; }
  int thread() const { return thread_; }

  // Calls body(unit) for each unit of [0, units), shared out among the team; all units are done when it returns.
  template <class Body>
  void each(long units, Body&& body) {
    if (size_ == 1) {
      for (long unit = 0; unit < units; unit++) body(unit);
      return;
    }
    // Three counters in turn: the next step's is reset while nobody can still be using it.
    std::atomic<long>& next = state_->next[step_ % 3];
    for (long unit; (unit = next.fetch_add(1, std::memory_order_relaxed)) < units;) body(unit);
    if (thread_ == 0) state_->next[(step_ + 1) % 3].store(0, std::memory_order_relaxed);
    step_++;
    state_->barrier.wait();
  }

 private:
  int size_, thread_;
  TeamState* state_;
  uint32_t step_ = 0;
};

}  // namespace longspan
