#include "base/environment.h"

#include <unistd.h>

#include <cstdlib>

namespace comba {

std::string forced_implementation() {
  const char* value = std::getenv("COMBA_IMPL");
  return value ? value : "";
}

std::optional<std::string> environment_variable(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value ? std::optional<std::string>(value) : std::nullopt;
}

char** child_environment() { return ::environ; }

}  // namespace comba
