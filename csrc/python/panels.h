// Weights in panels as arrays: as a file holds them, read where they lie, and as a bound program holds them.
#pragma once

#include <pybind11/numpy.h>

#include <vector>

#include "../program.h"
#include "reject.h"

namespace longspan {

// A weight's format by its name.
inline Format format_of(const std::string& name) {
  return one_of<Format>(name, {{"float32", Format::float32}, {"bfloat16", Format::bfloat16}, {"int8", Format::int8}});
}

// Weights [count * columns, k] of a record {"name", "format", "panels", "scales", "totals", "smooth"}: arrays that a file is
// mapped to, which go to `kept`. bfloat16 has panels alone, and smooth may be absent. Checks all that a kernel trusts;
// throws std::invalid_argument, which says the array's name.
std::vector<Panels> mapped_panels(std::vector<pybind11::object>& kept, const pybind11::dict& record, long count,
                                  long columns, long k, const float* bias, Format format);

// The matrices of an instruction that have a format, by field: a list of (panels, scales, totals, smooth), None where there
// is none, one for each expert or a single one. They are views of memory that lives as long as `owner`.
pybind11::dict panels_of(const Instruction& instruction, const pybind11::object& owner);

}  // namespace longspan
