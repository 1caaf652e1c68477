// The Python class WeightStream.
#pragma once

#include <pybind11/pybind11.h>

namespace longspan {

void add_weight_stream(pybind11::module_& module);

// Raises what ended a stream's last run, if anything did.
class WeightStream;
void raise_error_of(const WeightStream& stream);

}  // namespace longspan
