// The output formats of vectors, for Python.
#pragma once

#include <pybind11/pybind11.h>

namespace longspan {

void add_quantize(pybind11::module_& module);

}  // namespace longspan
