// Turns an instruction as Python hands it over, a name and a dict of fields, into a bound one.
#pragma once

#include <pybind11/numpy.h>

#include <string>
#include <vector>

#include "../program.h"

namespace longspan {

// Reads one instruction and packs its weights into `program`. What has to outlive the program goes to `kept`.
// Throws std::invalid_argument for anything that does not fit.
Instruction read_instruction(Program& program, std::vector<pybind11::object>& kept, const std::string& op,
                             const pybind11::dict& fields);

}  // namespace longspan
