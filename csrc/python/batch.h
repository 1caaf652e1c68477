// Batches as Python hands them over: views of numpy arrays, checked before a kernel trusts them.
#pragma once

#include <pybind11/numpy.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "../executor.h"
#include "reject.h"

namespace longspan {

namespace py = pybind11;

constexpr int kPlain = static_cast<int>(py::array::c_style) | static_cast<int>(py::detail::npy_api::NPY_ARRAY_ALIGNED_);

using Ints = py::array_t<int64_t, kPlain>;
using Ids = py::array_t<int32_t, kPlain>;
using Floats = py::array_t<float, kPlain>;
using Bytes = py::array_t<uint8_t, kPlain>;

// The array itself, never a copy of another kind: kernels read it where it lies.
template <class Array>
Array exact(const py::handle& value, const char* name) {
  using T = typename Array::value_type;
  const auto array = py::reinterpret_borrow<Array>(py::isinstance<Array>(value) ? value : py::handle());
  if (!array || reinterpret_cast<uintptr_t>(array.data()) % sizeof(T))
    reject(std::string(name) + " is not a C-contiguous, aligned array of " + py::str(py::dtype::of<T>()).cast<std::string>());
  return array;
}

template <class Array>
std::vector<Array> all_exact(const py::list& values, const char* name) {
  std::vector<Array> all;
  for (const auto& value : values) all.push_back(exact<Array>(value, name));
  return all;
}

struct PartialArrays {
  Ints starts, ends;
  Floats first_weight, weight_step;
};

inline void check_offsets(const Ints& offsets, const char* name, long last) {
  const auto at = offsets.unchecked<1>();
  if (at.shape(0) < 1 || at(0) != 0 || at(at.shape(0) - 1) != last) reject(std::string(name) + " must run from 0 to the end");
  for (py::ssize_t i = 1; i < at.shape(0); i++)
    if (at(i) < at(i - 1)) reject(std::string(name) + " runs backwards");
}

inline Partials view_partials(const PartialArrays& arrays, float* data) {
  const long count = static_cast<long>(arrays.starts.size());
  if (arrays.ends.size() != count || arrays.first_weight.size() != count || arrays.weight_step.size() != count)
    reject("the arrays of the partials differ in length");
  return {arrays.starts.data(), arrays.ends.data(), arrays.first_weight.data(), arrays.weight_step.data(), count, data};
}

// Each partial is a non-empty run of rows inside one segment.
inline void check_partials(const Partials& partials, const Ints& cu_seqlens) {
  const int64_t* begin = cu_seqlens.data();
  const int64_t* end = begin + cu_seqlens.size();
  for (long p = 0; p < partials.count; p++) {
    const int64_t* next = std::upper_bound(begin, end, partials.starts[p]);
    if (next == begin || next == end || partials.ends[p] <= partials.starts[p] || partials.ends[p] > *next)
      reject("partial " + std::to_string(p) + " is not a run of rows inside one segment");
  }
}

inline void check_rows(const int32_t* rows, long count, long offset, const Table& table, const char* name) {
  if (!table.present()) return;
  for (long i = 0; i < count; i++)
    if (rows[i] + offset < 0 || rows[i] + offset >= table.rows)
      reject(std::string(name) + " " + std::to_string(rows[i]) + " is outside the table of " + std::to_string(table.rows));
}

inline void check_order(const Ints& order, long packs) {
  std::vector<bool> seen(packs);
  if (order.size() != packs) reject("pack_order has one entry per pack");
  for (long i = 0; i < packs; i++) {
    const int64_t pack = order.data()[i];
    if (pack < 0 || pack >= packs || seen[pack]) reject("pack_order is not a permutation of the packs");
    seen[pack] = true;
  }
}

// Sines and cosines of one kind of rotary positions: the row of each token, and the rows.
struct RopeArrays {
  Ids rows;
  Floats values;
};

inline RopeTable view_rope(const RopeArrays& arrays, long tokens) {
  if (arrays.values.ndim() != 2 || arrays.rows.size() != tokens) reject("rotary positions need a row for every token");
  for (long i = 0; i < tokens; i++)
    if (arrays.rows.data()[i] < 0 || arrays.rows.data()[i] >= arrays.values.shape(0)) reject("a rotary position is outside its table");
  return {arrays.rows.data(), arrays.values.data()};
}

struct LayoutArrays {
  Ints offsets;
  long bytes;
  long rows;
};

// What packs carry from stage to stage: places of token buffers inside a row's bytes, -1 for all that is not carried.
struct CarriedArrays {
  Ints places;
  long row_bytes;
};

inline const int64_t* view_carried(const CarriedArrays& arrays, const std::vector<Buffer>& buffers) {
  if (static_cast<size_t>(arrays.places.size()) != buffers.size() || arrays.row_bytes < 0) reject("there are no such carried buffers");
  long most = 0;
  for (const Buffer& buffer : buffers) most += buffer.rows == Rows::tokens ? buffer.row_bytes() : 0;
  if (arrays.row_bytes > most) reject("packs carry more than all their buffers hold");
  for (size_t i = 0; i < buffers.size(); i++) {
    const int64_t place = arrays.places.data()[i], row = buffers[i].row_bytes();
    if (place != -1 && (buffers[i].rows != Rows::tokens || place < 0 || place > arrays.row_bytes - row))
      reject("a carried buffer lies outside its pack's bytes");
  }
  return arrays.places.data();
}

// Room for what all packs of a batch carry, one pack's rows after another's.
inline char* view_rows(const Bytes& rows, const Batch& batch, long row_bytes) {
  size_t needed = 0;
  for (long pack = 0; pack < batch.packs; pack++) needed += carried_bytes(batch.tokens_of(pack), row_bytes);
  if (static_cast<size_t>(rows.size()) < needed || !rows.writeable() || reinterpret_cast<uintptr_t>(rows.data()) % 64)
    reject("carried rows need " + std::to_string(needed) + " bytes that are aligned and may be written");
  return const_cast<char*>(reinterpret_cast<const char*>(rows.data()));
}

constexpr long kMostOfArena = 1L << 48;  // bytes or rows: more than any machine has, and sums of a few such still fit

// A layout whose buffers of the given kind lie inside its bytes, but for those that are carried.
inline Layout view_layout(const LayoutArrays& arrays, const std::vector<Buffer>& buffers, Rows kind, const int64_t* carried = nullptr) {
  if (static_cast<size_t>(arrays.offsets.size()) != buffers.size()) reject("a layout has one offset per buffer");
  if (arrays.rows < 0 || arrays.bytes < 0 || arrays.bytes % 64 || arrays.rows > kMostOfArena || arrays.bytes > kMostOfArena)
    reject("there is no such arena");
  for (size_t i = 0; i < buffers.size(); i++) {
    const int64_t offset = arrays.offsets.data()[i], row = buffers[i].row_bytes();
    if (carried && carried[i] >= 0) continue;
    if (buffers[i].rows == kind && (offset < 0 || offset % 64 || offset > arrays.bytes || arrays.rows > (arrays.bytes - offset) / row))
      reject("a buffer lies outside its arena");
  }
  return {arrays.offsets.data(), arrays.bytes, arrays.rows};
}

// How a run goes stage by stage; see Staging.
struct StagingArrays {
  CarriedArrays carried;
  std::optional<Bytes> rows;
  WeightStream* stream;
  long kept;
};

// What texts a body runs on.
struct BatchArrays {
  Ids ids, positions;
  Ints cu_seqlens;
  std::vector<PartialArrays> partials;
  int task;
  std::vector<RopeArrays> ropes;
  std::vector<Floats> q_scales;
};

// How they are shared out.
struct PackArrays {
  Ints segments, order;
  long shared;
};

// Where the buffers lie.
struct BodyLayoutArrays {
  LayoutArrays pack, shared, tile;
};

// --- from Python's tuples and lists

inline PartialArrays partials_from(const py::tuple& arrays) {
  return {exact<Ints>(arrays[0], "partials"), exact<Ints>(arrays[1], "partials"), exact<Floats>(arrays[2], "partials"),
          exact<Floats>(arrays[3], "partials")};
}

inline std::vector<PartialArrays> all_partials(const py::list& list) {
  std::vector<PartialArrays> all;
  for (const auto& item : list) all.push_back(partials_from(item.cast<py::tuple>()));
  return all;
}

inline std::vector<RopeArrays> all_ropes(const py::list& list) {
  std::vector<RopeArrays> all;
  for (const auto& item : list) {
    const auto pair = item.cast<py::tuple>();
    all.push_back({exact<Ids>(pair[0], "ropes"), exact<Floats>(pair[1], "ropes")});
  }
  return all;
}

inline LayoutArrays layout_from(const py::tuple& layout) {
  return {exact<Ints>(layout[0], "a layout"), layout[1].cast<long>(), layout[2].cast<long>()};
}

inline std::optional<StagingArrays> staging_from(const std::optional<py::tuple>& staging) {
  if (!staging) return std::nullopt;
  const py::tuple& it = *staging;
  std::optional<Bytes> rows;
  if (!it[2].is_none()) rows = exact<Bytes>(it[2], "carried rows");
  return StagingArrays{{exact<Ints>(it[0], "carried"), it[1].cast<long>()}, rows, it[3].cast<WeightStream*>(), it[4].cast<long>()};
}

}  // namespace longspan
