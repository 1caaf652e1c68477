// Which tier of kernels this machine can run.
#pragma once

#include <string>
#include <vector>

#include "kernels/table.h"

namespace longspan {

// The tiers that this machine supports, lowest first: "generic", "v3", "v4", "v4+vnni", "v4+bf16", "v4+amx".
std::vector<std::string> supported_tiers();

// The kernels of a tier by name; an empty name means the best one. Throws std::invalid_argument for a name that is
// unknown or that this machine does not support.
const Kernels& kernels_of(const std::string& tier);

}  // namespace longspan
