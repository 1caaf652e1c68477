// Tables that are not mapped into memory: their rows are read from the file as they are needed.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <vector>

#include "kernels/table.h"

namespace longspan {

constexpr long kRowsRead = 16;  // of an embedding, that a thread has in memory at a time

// Where the bytes of an array in memory, which nobody then looks at, lie in a file. The descriptor is duplicated.
class TableFile {
 public:
  TableFile(const void* data, size_t bytes, int file, off_t offset);
  TableFile(const TableFile&) = delete;
  TableFile& operator=(const TableFile&) = delete;
  TableFile(TableFile&& other) noexcept;
  ~TableFile();

  bool holds(const void* data) const { return data >= data_ && data < data_ + bytes_; }
  // Reads what belongs at an address of the array. False, and zeros, where the file does not give it.
  bool read(const void* from, void* to, size_t bytes) const;

 private:
  const char* data_;
  size_t bytes_;
  int file_;
  off_t offset_;
};

// The rows of one embedding's tables that some tokens need, side by side.
class RowsRead {
 public:
  // Scratch bytes for `kRowsRead` tokens.
  static long bytes(const EmbedArgs& args);

  // `space` has so many bytes.
  RowsRead(const std::vector<TableFile>& files, char* space) : files_(files), free_(space) {}

  // The same for the rows [row0, row1) as [0, row1 - row0): with tables of what these need alone. False if a file has not
  // what it had.
  bool fetch(const EmbedArgs& args, long row0, long row1, EmbedArgs& fetched);

 private:
  Table take(const Table& table, const int32_t* rows, long count, long offset);

  const std::vector<TableFile>& files_;
  char* free_;
  bool complete_ = true;
};

}  // namespace longspan
