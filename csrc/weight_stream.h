// Weights that are read from their file stage by stage: ahead of the threads that multiply with them, and dropped after use.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace longspan {

// Every stage has a place of its own in one reservation of addresses, so that what multiplies with a weight finds it where
// it always was; only what has been read takes memory. A run reads stages in order: the first `kept` of them once, to stay;
// of the others two are there at most, the one in use and the one that comes next.
class WeightStream {
 public:
  struct Span {
    uint64_t offset;  // in the file
    size_t bytes;
  };

  // What each stage reads. The descriptor is duplicated. Throws std::bad_alloc.
  WeightStream(int file, std::vector<std::vector<Span>> stages);
  ~WeightStream();
  WeightStream(const WeightStream&) = delete;
  WeightStream& operator=(const WeightStream&) = delete;

  // Where a span lies once its stage is there; a multiple of 64 bytes.
  char* data(size_t stage, size_t span) const { return base_ + stages_[stage].places[span]; }
  const Span& span(size_t stage, size_t span) const { return stages_[stage].spans[span]; }

  size_t stages() const { return stages_.size(); }
  size_t spans(size_t stage) const { return stages_[stage].spans.size(); }

  // Bytes of a stage, in whole pages, and of all that are there now.
  size_t bytes(size_t stage) const { return stages_[stage].end - stages_[stage].begin; }
  size_t resident_bytes() const { return resident_; }

  // Reads all that is not there yet, to stay, asking `stop` now and then. Returns whether all is there; see `error`.
  bool load(bool (*stop)(void*), void* context);

  // A run, which one thread begins and ends. `wait` says whether a stage is there, or in vain: see `error`.
  void begin(size_t kept);
  bool wait(size_t stage, std::chrono::milliseconds patience);
  void done(size_t stage);
  void end();

  // Whether this run's reading has ended early.
  bool failed() const;

  // Why the last run's did; empty if it did not.
  const std::string& error() const { return error_; }

 private:
  struct Stage {
    std::vector<Span> spans;
    std::vector<size_t> places;  // from the reservation's beginning
    size_t begin, end;           // whole pages
  };
  struct Session;  // of one run, with its thread

  void read(Session& session);
  std::string read_stage(const Stage& stage) const;
  std::string changed() const;
  void forget(size_t stage);
  void hand_over(size_t from, size_t to);
  void drop(size_t stage);

  int file_;
  off_t size_;
  timespec written_;
  std::vector<Stage> stages_;
  std::vector<bool> there_;
  std::atomic<size_t> resident_{0};
  void* reserved_ = nullptr;
  size_t reserved_bytes_ = 0;
  char* base_ = nullptr;  // in it, where a table of pages begins
  std::unique_ptr<Session> session_;
  uint64_t generation_;
  std::string error_;
};

}  // namespace longspan
