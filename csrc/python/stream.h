// The Python class WeightStream.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

namespace longspan {

void add_weight_stream(pybind11::module_& module);

// Raises a StreamError: a file has not any more what it had.
[[noreturn]] void raise_stream_error(const std::string& what);

// Raises what ended a stream's last run, if anything did.
class WeightStream;
void raise_error_of(const WeightStream& stream);

}  // namespace longspan
