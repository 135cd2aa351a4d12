#include "base/environment.h"

#include <cstdlib>

namespace comba {

std::string forced_implementation() {
  const char* value = std::getenv("COMBA_IMPL");
  return value ? value : "";
}

}  // namespace comba
