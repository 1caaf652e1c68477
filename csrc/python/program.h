// The Python class Program.
#pragma once

#include <pybind11/pybind11.h>

namespace longspan {

void add_program(pybind11::module_& module);

}  // namespace longspan
