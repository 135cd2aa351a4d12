#include "signals.h"

#include <unistd.h>

#include <csignal>

namespace comba::cli {
namespace {

StopFlag stop_flag;

void on_signal(int signal_number) {
  if (stop_flag.requested()) ::_exit(128 + signal_number);
  stop_flag.request(signal_number);
  constexpr char kMessage[] = "\ncomba: stopping; a second signal ends it at once\n";
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, kMessage, sizeof kMessage - 1);
}

}  // namespace

const StopFlag& stop_on_signals() {
  struct sigaction action = {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;  // a write cut short would look like a failure
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  return stop_flag;
}

int interrupted_exit_code() { return 128 + stop_flag.signal_number(); }

}  // namespace comba::cli
