#pragma once

#include "base/stop_flag.h"

namespace comba::cli {

/// From now on the first SIGINT or SIGTERM sets the flag, and a second one ends the process at once with 128 + signal.
/// For commands that poll the flag; without this call a signal ends the process as usual. To be called once, before
/// anything that may start threads.
/// `quiet`: the first one is not acknowledged on stderr.
const StopFlag& stop_on_signals(bool quiet = false);

/// Exit code of a command that gave up because the flag was set.
int interrupted_exit_code();

}  // namespace comba::cli
