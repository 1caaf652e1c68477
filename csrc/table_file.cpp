#include "table_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace longspan {

namespace {

constexpr int32_t kPlaces[kRowsRead] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

long row_bytes(const Table& table) { return table.width * (table.dtype == Dtype::float32 ? 4 : 2); }

long room(const Table& table, long rows) {
  return table.present() ? round_up(rows * row_bytes(table), kLineBytes) : 0;
}

}  // namespace

TableFile::TableFile(const void* data, size_t bytes, int file, off_t offset)
    : data_(static_cast<const char*>(data)), bytes_(bytes), file_(fcntl(file, F_DUPFD_CLOEXEC, 0)), offset_(offset) {}

TableFile::TableFile(TableFile&& other) noexcept
    : data_(other.data_), bytes_(other.bytes_), file_(std::exchange(other.file_, -1)), offset_(other.offset_) {}

TableFile::~TableFile() {
  if (file_ >= 0) close(file_);
}

bool TableFile::read(const void* from, void* to, size_t bytes) const {
  char* out = static_cast<char*>(to);
  off_t at = offset_ + (static_cast<const char*>(from) - data_);
  for (size_t left = bytes; left;) {
    const ssize_t got = pread(file_, out, left, at);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      std::memset(out, 0, left);
      return false;
    }
    out += got, at += got, left -= static_cast<size_t>(got);
  }
  return true;
}

long RowsRead::bytes(const EmbedArgs& args) {
  return room(args.tokens, kRowsRead) + room(args.tokens_gain.left, kRowsRead) + room(args.position_table, kRowsRead) +
         room(args.types, 1) + room(args.types_gain.left, 1);
}

bool RowsRead::fetch(const EmbedArgs& args, long row0, long row1, EmbedArgs& fetched) {
  const long count = row1 - row0;
  fetched = args;
  fetched.ids = fetched.positions = kPlaces;
  fetched.position_offset = 0;
  fetched.out = args.out.from(row0);
  fetched.tokens = take(args.tokens, args.ids + row0, count, 0);
  fetched.position_table = take(args.position_table, args.positions + row0, count, args.position_offset);
  fetched.types = take(args.types, kPlaces, 1, 0);
  fetched.tokens_gain.left = take(args.tokens_gain.left, args.ids + row0, count, args.tokens_gain.first);
  fetched.types_gain.left = take(args.types_gain.left, kPlaces, 1, args.types_gain.first);
  fetched.tokens_gain.first = fetched.types_gain.first = 0;
  return complete_;
}

// Rows that follow one another, as positions do, are read together.
Table RowsRead::take(const Table& table, const int32_t* rows, long count, long offset) {
  if (!table.present()) return table;
  const long size = row_bytes(table);
  const char* data = static_cast<const char*>(table.data);
  char* place = std::exchange(free_, free_ + room(table, count));
  for (long first = 0, last; first < count; first = last) {
    for (last = first + 1; last < count && rows[last] == rows[last - 1] + 1;) last++;
    const char* from = data + (rows[first] + offset) * size;
    char* to = place + first * size;
    const size_t bytes = static_cast<size_t>((last - first) * size);
    const TableFile* file = nullptr;
    for (const TableFile& one : files_)
      if (one.holds(from)) file = &one;
    if (!file) std::memcpy(to, from, bytes);
    else complete_ &= file->read(from, to, bytes);
  }
  return {place, table.dtype, count, table.width};
}

}  // namespace longspan
