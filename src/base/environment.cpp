#include "base/environment.h"

#include <unistd.h>

#include <cstdlib>

namespace comba {

std::string forced_implementation() {
  const char* value = std::getenv("COMBA_IMPL");
  return value ? value : "";
}

char** child_environment() { return ::environ; }

}  // namespace comba
