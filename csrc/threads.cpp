#include "threads.h"

#include <pthread.h>

#include <condition_variable>
#include <mutex>
#include <new>
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

// Denormals as zero, round to nearest, no exceptions, whatever the host program has set: the same bits everywhere.
class FloatMode {
 public:
#ifdef LONGSPAN_X86
  FloatMode() : saved_(_mm_getcsr()) { _mm_setcsr(0x9fc0); }
  ~FloatMode() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#endif
};

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
    for (int spin = 0; left_.load(std::memory_order_acquire) > 0; spin++) {
      if (spin < kSpins) relax();
      else std::this_thread::yield();
    }
  }

 private:
  void start_worker() {
    const int thread = workers_ + 1;
    std::thread([this, thread, seen = round_.load()] { work(thread, seen); }).detach();
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
      left_.fetch_sub(1, std::memory_order_release);
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

Pool& pool() {
  Pool* existing = current.load(std::memory_order_acquire);
  if (existing) return *existing;
  static const int registered = pthread_atfork(nullptr, nullptr, after_fork);
  (void)registered;
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
  if (generation_ != fork_generation()) {
    new (&mutex_) std::mutex;
    generation_ = fork_generation();
  }
  mutex_.lock();
}

void ForkSafeMutex::unlock() { mutex_.unlock(); }

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
