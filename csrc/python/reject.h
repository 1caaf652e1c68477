// How the bindings refuse a value: as Python's ValueError.
#pragma once

#include <initializer_list>
#include <stdexcept>
#include <string>
#include <utility>

namespace longspan {

[[noreturn]] inline void reject(const std::string& message) { throw std::invalid_argument(message); }

template <class Enum>
Enum one_of(const std::string& name, std::initializer_list<std::pair<const char*, Enum>> known) {
  for (const auto& [candidate, value] : known)
    if (name == candidate) return value;
  reject("unknown name '" + name + "'");
}

}  // namespace longspan
