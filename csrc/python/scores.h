// Scores between vectors, for Python.
#pragma once

#include <pybind11/pybind11.h>

namespace longspan {

void add_scores(pybind11::module_& module);

}  // namespace longspan
