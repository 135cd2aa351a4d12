// Stands in for gloo_group.cpp where Gloo's headers are missing.
#include "base/message.h"
#include "distributed/process_group.h"
#include "distributed/roster.h"

namespace comba::distributed {

bool has_gloo() { return false; }

std::unique_ptr<ProcessGroup> make_gloo_group(const Roster& roster, std::chrono::milliseconds) {
  require(false, ErrorCode::unsupported, "[distributed] this build has no Gloo and trains in one process; got ",
          roster.size(), " processes (install the Debian package libgloo-dev and build again)");
  return nullptr;
}

}  // namespace comba::distributed
