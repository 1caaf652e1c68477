// Page-aligned memory that grows until it is given back: arenas and packed weights.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>
#include <sys/mman.h>

#include "kernels/rounding.h"

namespace longspan {

#ifdef __SANITIZE_ADDRESS__
// From the heap, so that the sanitiser knows where a mapping ends.
constexpr size_t kPage = 64;

inline void* map_pages(size_t bytes) {
  void* data = std::aligned_alloc(kPage, bytes);
  return data ? std::memset(data, 0, bytes) : throw std::bad_alloc();
}
inline void unmap_pages(void* data, size_t) { std::free(data); }
#else
constexpr size_t kPage = 4096;

inline void* map_pages(size_t bytes) {
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) throw std::bad_alloc();
  madvise(data, bytes, MADV_HUGEPAGE);
  return data;
}
inline void unmap_pages(void* data, size_t bytes) { munmap(data, bytes); }
#endif

class Mapping {
 public:
  Mapping() = default;
  explicit Mapping(size_t bytes) { grow(bytes); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  Mapping(Mapping&& other) noexcept : data_(other.data_), bytes_(other.bytes_) {
    other.data_ = nullptr;
    other.bytes_ = 0;
  }
  ~Mapping() { release(); }

  // Makes room for `bytes`, in whole pages; the contents are lost if the mapping has to move. Throws std::bad_alloc.
  void grow(size_t bytes) {
    if (bytes <= bytes_) return;
    bytes = round_up(bytes, kPage);
    release();
    data_ = static_cast<char*>(map_pages(bytes));
    bytes_ = bytes;
  }

  void release() {
    if (data_) unmap_pages(data_, bytes_);
    data_ = nullptr;
    bytes_ = 0;
  }

  char* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  char* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace longspan
