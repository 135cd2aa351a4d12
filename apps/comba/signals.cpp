#include "signals.h"

#include <pthread.h>
#include <unistd.h>

#include <csignal>
#include <thread>

namespace comba::cli {
namespace {

StopFlag stop_flag;

void wait_for_signals(sigset_t signals, bool quiet) {
  int number = 0;
  while (sigwait(&signals, &number) == 0) {
    if (stop_flag.requested()) ::_exit(128 + number);
    stop_flag.request(number);
    if (quiet) continue;
    constexpr char kMessage[] = "\ncomba: stopping; a second signal ends it at once\n";
    [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, kMessage, sizeof kMessage - 1);
  }
}

}  // namespace

// A signal is waited for by a thread of its own and handled in no other: the code that oneDNN generates uses the stack
// pointer for addresses of data, so that the frame of a handler that interrupts it would be written over the heap.
const StopFlag& stop_on_signals(bool quiet) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // threads made from now on inherit it
  std::thread(wait_for_signals, signals, quiet).detach();
  return stop_flag;
}

int interrupted_exit_code() { return 128 + stop_flag.signal_number(); }

}  // namespace comba::cli
