#include "isa.h"

#include <stdexcept>

#if defined(LONGSPAN_X86)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace longspan {

namespace {

#ifdef LONGSPAN_X86
[[maybe_unused]] constexpr long kTileData = 18;  // the number of the tiles' registers among those that a system saves

// AMX: the processor has it, and the system knows of its registers.
bool amx_known() {
#ifdef __linux__
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24, kInt8 = 1u << 25;
  if ((d & (kBf16 | kTile | kInt8)) != (kBf16 | kTile | kInt8)) return false;
  constexpr long kSupported = 0x1021;
  unsigned long features = 0;
  return syscall(SYS_arch_prctl, kSupported, &features) == 0 && (features >> kTileData & 1);
#else
  return false;
#endif
}

// The process may use tiles only once it has asked, for all of its threads and children. Not before they are wanted: with
// the permission, signal stacks have to be larger.
bool amx_allowed() {
#ifdef __linux__
  constexpr long kRequest = 0x1023;
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
#else
  return false;
#endif
}

// What Clang 14 cannot be asked by name.
bool has_rest_of_v3() {
  constexpr unsigned kMovbe = 1u << 22, kF16c = 1u << 29, kLzcnt = 1u << 5;
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || (c & (kMovbe | kF16c)) != (kMovbe | kF16c)) return false;
  return __get_cpuid(0x80000001, &a, &b, &c, &d) && c & kLzcnt;
}
#endif

// __builtin_cpu_supports also asks the operating system whether it saves the wide registers.
std::vector<const Kernels*> ask_the_processor() {
  std::vector<const Kernels*> tiers{&kGeneric};
#ifdef LONGSPAN_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
      __builtin_cpu_supports("bmi2") && has_rest_of_v3()) {
    tiers.push_back(&kX86V3);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
      tiers.push_back(&kX86V4);
      if (__builtin_cpu_supports("avx512vnni")) {
        tiers.push_back(&kX86V4Vnni);
        if (__builtin_cpu_supports("avx512bf16")) {
          tiers.push_back(&kX86V4Bf16);
          if (amx_known()) tiers.push_back(&kX86V4Amx);
        }
      }
    }
  }
#endif
  return tiers;
}

// In a virtual machine each question takes some tens of microseconds: it is asked once.
const std::vector<const Kernels*>& supported() {
  static const std::vector<const Kernels*> tiers = ask_the_processor();
  return tiers;
}

}  // namespace

std::vector<std::string> supported_tiers() {
  std::vector<std::string> names;
  for (const Kernels* tier : supported()) names.push_back(tier->name);
  return names;
}

const Kernels& kernels_of(const std::string& tier) {
  auto tiers = supported();
#ifdef LONGSPAN_X86
  if ((tier.empty() || tier == kX86V4Amx.name) && tiers.back() == &kX86V4Amx && !amx_allowed()) {
    if (!tier.empty()) throw std::invalid_argument("the system does not let this process use AMX, as a signal stack is too small");
    tiers.pop_back();
  }
#endif
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
