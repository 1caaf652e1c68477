#include "isa.h"

#include <stdexcept>

namespace longspan {

namespace {

// __builtin_cpu_supports also asks the operating system whether it saves the wide registers.
std::vector<const Kernels*> supported() {
  std::vector<const Kernels*> tiers{&kGeneric};
#ifdef LONGSPAN_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
      __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("f16c") && __builtin_cpu_supports("lzcnt") &&
      __builtin_cpu_supports("movbe")) {
    tiers.push_back(&kX86V3);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
      tiers.push_back(&kX86V4);
  }
#endif
  return tiers;
}

}  // namespace

std::vector<std::string> supported_tiers() {
  std::vector<std::string> names;
  for (const Kernels* tier : supported()) names.push_back(tier->name);
  return names;
}

const Kernels& kernels_of(const std::string& tier) {
  const auto tiers = supported();
  if (tier.empty()) return *tiers.back();
  std::string known;
  for (const Kernels* candidate : tiers) {
    if (tier == candidate->name) return *candidate;
    known += known.empty() ? "" : ", ";
    known += candidate->name;
  }
  throw std::invalid_argument("instruction tier '" + tier + "' is not available on this machine; available are " + known);
}

}  // namespace longspan
