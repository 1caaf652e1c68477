#include "weight_stream.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <new>
#include <sstream>
#include <system_error>
#include <thread>
#include <utility>

#include "kernels/table.h"
#include "threads.h"

namespace longspan {

namespace {

constexpr size_t kPageBytes = 4096, kTable = 2 << 20;  // a table of pages moves as a whole
constexpr size_t kAtOnce = 8 << 20;  // what is read before it is looked whether to go on
constexpr size_t kTwo = 2, kNone = ~size_t{0};

}  // namespace

struct WeightStream::Session {
  std::mutex mutex;
  std::condition_variable moved;
  size_t kept = 0;
  size_t ahead = 0;  // stages that are there, or nearly, and will be dropped
  size_t spent = kNone;  // a stage that is done with, whose pages the next one gets
  std::atomic<bool> stop{false};
  std::thread thread;
};

WeightStream::WeightStream(int file, std::vector<std::vector<Span>> stages)
    : file_(fcntl(file, F_DUPFD_CLOEXEC, 0)), there_(stages.size()), generation_(fork_generation()) {
  size_t end = 0;
  for (std::vector<Span>& spans : stages) {
    Stage stage{std::move(spans), {}, round_up(end, kTable), 0};
    stage.end = stage.begin;
    for (const Span& span : stage.spans) {
      stage.places.push_back(stage.end);
      stage.end += round_up(span.bytes, kLineBytes);
    }
    stage.end = round_up(stage.end, kPageBytes);
    end = stage.end;
    stages_.push_back(std::move(stage));
  }
  struct stat status {};
  if (file_ >= 0) fstat(file_, &status);
  size_ = status.st_size;
  written_ = status.st_mtim;
  if (!end) return;
  reserved_bytes_ = end + kTable;  // room to begin at a multiple of it
  reserved_ = mmap(nullptr, reserved_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved_ == MAP_FAILED) {
    if (file_ >= 0) close(file_);
    throw std::bad_alloc();
  }
  base_ = reinterpret_cast<char*>(round_up(reinterpret_cast<uintptr_t>(reserved_), kTable));
}

WeightStream::~WeightStream() {
  if (session_ && generation_ == fork_generation()) end();
  else session_.release();  // a forked child has not the parent's thread
  if (reserved_) munmap(reserved_, reserved_bytes_);
  if (file_ >= 0) close(file_);
}

void WeightStream::begin(size_t kept) {
  if (generation_ != fork_generation()) {  // the parent's thread may have been reading
    generation_ = fork_generation();
    session_.release();
    for (size_t stage = 0; stage < stages_.size(); stage++) drop(stage);
  }
  error_.clear();
  for (size_t stage = kept; stage < stages_.size(); stage++) drop(stage);
  session_ = std::make_unique<Session>();
  session_->kept = kept;
  try {
    session_->thread = std::thread([this] { read(*session_); });
  } catch (const std::system_error&) {  // the system refuses another thread
    session_.reset();
    throw std::bad_alloc();
  }
}

bool WeightStream::failed() const {
  const std::lock_guard<std::mutex> lock(session_->mutex);
  return !error_.empty();
}

void WeightStream::read(Session& session) {
  for (size_t number = 0; number < stages_.size(); number++) {
    std::unique_lock<std::mutex> lock(session.mutex);
    const bool passing = number >= session.kept && bytes(number);
    if (there_[number]) continue;
    session.moved.wait(lock, [&] { return session.stop || !passing || session.ahead < kTwo; });
    if (session.stop) return;
    session.ahead += passing;
    if (passing && session.spent != kNone) hand_over(std::exchange(session.spent, kNone), number);
    lock.unlock();
    std::string error = read_stage(stages_[number]);
    lock.lock();
    if (error.empty()) {
      there_[number] = true;
      resident_ += bytes(number);
    } else {
      drop(number);
      error_ = std::move(error);
    }
    session.moved.notify_all();
    if (!error_.empty()) return;
  }
}

std::string WeightStream::changed() const {
  struct stat status {};
  if (fstat(file_, &status) != 0) return std::strerror(errno);
  if (status.st_size != size_) {
    std::ostringstream text;
    text << "it had " << size_ << " bytes and has " << status.st_size << " now";
    return text.str();
  }
  if (status.st_mtim.tv_sec != written_.tv_sec || status.st_mtim.tv_nsec != written_.tv_nsec) return "it was written to";
  return "";
}

std::string WeightStream::read_stage(const Stage& stage) const {
  if (std::string error = changed(); stage.begin != stage.end && !error.empty()) return error;
  // What follows one another in the file and in memory is read together.
  for (size_t first = 0, last; first < stage.spans.size(); first = last) {
    size_t bytes = stage.spans[first].bytes;
    for (last = first + 1; last < stage.spans.size(); last++) {
      if (stage.spans[last].offset != stage.spans[first].offset + bytes || stage.places[last] != stage.places[first] + bytes) break;
      bytes += stage.spans[last].bytes;
    }
    for (size_t at = 0; at < bytes;) {
      if (session_->stop) return "stopped";
      const ssize_t got = pread(file_, base_ + stage.places[first] + at, std::min(bytes - at, kAtOnce),
                                static_cast<off_t>(stage.spans[first].offset + at));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return std::strerror(errno);
      if (got == 0) return "it ends where weights are expected";
      at += static_cast<size_t>(got);
    }
  }
  return "";
}

bool WeightStream::load(bool (*stop)(void*), void* context) {
  error_.clear();
  if (generation_ == fork_generation() && std::find(there_.begin(), there_.end(), false) == there_.end()) return true;
  begin(stages());
  bool going = true;
  for (size_t stage = 0; going && stage < stages(); stage++)
    while (going && !wait(stage, std::chrono::milliseconds(50))) going = !stop(context);
  end();
  return going && error_.empty();
}

bool WeightStream::wait(size_t stage, std::chrono::milliseconds patience) {
  std::unique_lock<std::mutex> lock(session_->mutex);
  return session_->moved.wait_for(lock, patience, [&] { return there_[stage] || !error_.empty(); });
}

void WeightStream::done(size_t stage) {
  const std::lock_guard<std::mutex> lock(session_->mutex);
  if (stage < session_->kept || !bytes(stage)) return;
  if (session_->spent != kNone) drop(session_->spent);
  forget(stage);
  session_->spent = stage;
  session_->ahead--;
  session_->moved.notify_all();
}

void WeightStream::end() {
  {
    const std::lock_guard<std::mutex> lock(session_->mutex);
    session_->stop = true;
    session_->moved.notify_all();
  }
  if (session_->thread.joinable()) session_->thread.join();
  for (size_t stage = session_->kept; stage < stages_.size(); stage++) drop(stage);
  session_.reset();
}

void WeightStream::forget(size_t stage) {
  if (there_[stage]) resident_ -= bytes(stage);
  there_[stage] = false;
}

// Fresh pages would have to be found and zeroed for every stage again.
void WeightStream::hand_over(size_t from, size_t to) {
#ifdef MREMAP_DONTUNMAP
  const size_t moved = std::min(bytes(from), bytes(to));
  char* const place = base_ + stages_[to].begin;
  void* const found = mremap(base_ + stages_[from].begin, moved, moved, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, place);
  // Where it fails, what was at the new place may be gone already, and others' memory must not come there.
  if (found == MAP_FAILED) mmap(place, moved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
#endif
  (void)to;
  drop(from);  // what is left there, or all of it where the system moves no pages
}

void WeightStream::drop(size_t stage) {
  forget(stage);
  if (bytes(stage)) madvise(base_ + stages_[stage].begin, bytes(stage), MADV_DONTNEED);
}

}  // namespace longspan
