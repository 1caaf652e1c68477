#include "threads.h"

#include <pthread.h>

#include <condition_variable>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

#ifdef LONGSPAN_X86
#include <immintrin.h>
#endif

namespace longspan {

namespace {

constexpr int kSpins = 4000;  // some tens of microseconds: longer than the gap between two instructions

inline void relax() {
#ifdef LONGSPAN_X86
  _mm_pause();
#endif
}

#if defined(LONGSPAN_X86)
constexpr unsigned long kFloatControl = 0x9fc0;
#elif defined(__aarch64__)
constexpr unsigned long kFloatControl = 1ul << 24;
#else
constexpr unsigned long kFloatControl = 0;
#endif

struct Job {
  void (*fn)(void*, int) = nullptr;
  void* context = nullptr;
  int threads = 0;
};

class Pool {
 public:
  void run(const Job& job) {
    std::lock_guard<std::mutex> turn(turn_);
    while (workers_ < job.threads - 1) start_worker();
    left_.store(job.threads - 1, std::memory_order_relaxed);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      job_ = job;
      round_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    {
      FloatMode mode;
      job.fn(job.context, 0);
    }
    for (int spin = 0; spin < kSpins && left_.load(std::memory_order_acquire) > 0; spin++) relax();
    for (int left; (left = left_.load(std::memory_order_acquire)) > 0;) left_.wait(left, std::memory_order_acquire);
  }

 private:
  void start_worker() {
    const int thread = workers_ + 1;
    try {
      std::thread([this, thread, seen = round_.load()] { work(thread, seen); }).detach();
    } catch (const std::system_error&) {  // the system refuses another thread, for want of memory as a rule
      throw std::bad_alloc();
    }
    workers_ = thread;
  }

  void work(int thread, uint64_t seen) {
    FloatMode mode;
    for (;;) {
      for (int spin = 0; spin < kSpins && round_.load(std::memory_order_acquire) == seen; spin++) relax();
      Job job;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return round_.load(std::memory_order_relaxed) != seen; });
        seen = round_.load(std::memory_order_relaxed);
        job = job_;
      }
      if (thread >= job.threads) continue;
      job.fn(job.context, thread);
      if (left_.fetch_sub(1, std::memory_order_release) == 1) left_.notify_all();
    }
  }

  std::mutex turn_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<uint64_t> round_{0};
  std::atomic<int> left_{0};
  Job job_;
  int workers_ = 0;
};

std::atomic<Pool*> current{nullptr};
std::atomic<uint64_t> generation{0};

// The child of a fork has none of the workers and may hold locks forever: it abandons the old pool.
void after_fork() {
  current.store(nullptr);
  generation.fetch_add(1);
}

// When the library is loaded, so that no fork is missed.
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, after_fork);

Pool& pool() {
  Pool* existing = current.load(std::memory_order_acquire);
  if (existing) return *existing;
  Pool* fresh = new Pool;  // never destroyed: workers may outlive static destruction
  if (current.compare_exchange_strong(existing, fresh)) return *fresh;
  delete fresh;
  return *existing;
}

}  // namespace

void run_on_threads(int threads, void (*fn)(void*, int), void* context) {
  if (threads <= 1) {
    FloatMode mode;
    fn(context, 0);
    return;
  }
  pool().run(Job{fn, context, threads});
}

uint64_t fork_generation() { return generation.load(); }

void ForkSafeMutex::lock() {
  State* state = current_.load();
  if (state->generation != fork_generation()) {
    State* fresh = new State;  // the old one stays: its mutex may be locked for ever
    if (current_.compare_exchange_strong(state, fresh)) state = fresh;
    else delete fresh;
  }
  state->mutex.lock();
  held_ = state;
}

FloatMode::FloatMode() : saved_(float_control()) { set_float_control(kFloatControl); }

#if defined(LONGSPAN_X86)
unsigned long float_control() { return _mm_getcsr(); }
void set_float_control(unsigned long control) { _mm_setcsr(static_cast<unsigned>(control)); }
#elif defined(__aarch64__)
unsigned long float_control() {
  unsigned long control;
  asm volatile("mrs %0, fpcr" : "=r"(control));
  return control;
}
void set_float_control(unsigned long control) { asm volatile("msr fpcr, %0" : : "r"(control)); }
#else
unsigned long float_control() { return 0; }
void set_float_control(unsigned long) {}
#endif

void Barrier::wait() {
  const uint32_t round = round_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
    arrived_.store(0, std::memory_order_relaxed);
    round_.store(round + 1, std::memory_order_release);
    round_.notify_all();
    return;
  }
  for (int spin = 0; spin < kSpins; spin++) {
    if (round_.load(std::memory_order_acquire) != round) return;
    relax();
  }
  round_.wait(round, std::memory_order_acquire);
}

}  // namespace longspan
