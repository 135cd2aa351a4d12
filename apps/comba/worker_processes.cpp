#include "worker_processes.h"

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <set>
#include <thread>

#include "base/message.h"
#include "command.h"
#include "run_together.h"
#include "signals.h"

namespace comba::cli {
namespace {

constexpr int kNoAnswer = 255;

std::set<pid_t> workers;

pid_t fork_process() {
  std::fflush(nullptr);  // else both would write what is still buffered
  const pid_t parent = ::getpid(), process = ::fork();
  require(process >= 0, ErrorCode::io, "[workers] cannot start a process: ", std::strerror(errno));
  if (process == 0) {
    ::setpgid(0, 0);  // a terminal's Ctrl-C reaches the first process alone, which passes it on
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != parent) ::_exit(kFailure);  // it has ended before that
  }
  return process;
}

int exit_code_of_status(int status) { return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status); }

void signal_workers(int number) {
  for (const pid_t worker : workers) ::kill(worker, number);
}

}  // namespace

std::optional<int> start_workers(int count) {
  for (int i = 0; i < count; ++i) {
    const pid_t worker = fork_process();
    if (worker == 0) {
      workers.clear();
      return i;
    }
    workers.insert(worker);
  }
  return std::nullopt;
}

void wait_for_workers() {
  const StopFlag& stop = stop_on_signals();
  int exit_code = 0;
  bool told = false;
  while (!workers.empty()) {
    int status = 0;
    const pid_t worker = ::waitpid(-1, &status, WNOHANG);
    if (worker > 0 && workers.erase(worker) > 0 && exit_code == 0) exit_code = exit_code_of_status(status);
    if (!told && (stop.requested() || exit_code != 0)) {
      signal_workers(stop.requested() ? stop.signal_number() : SIGTERM);
      told = true;
    }
    if (worker <= 0) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  if (exit_code != 0) throw ToldElsewhere{exit_code};
}

std::optional<int> ask_in_process(const std::function<int()>& question) {
  const pid_t process = fork_process();
  if (process == 0) {
    int answer = kNoAnswer;
    try {
      answer = question();
    } catch (const std::exception&) {  // whoever asks will see it for themselves
    }
    ::_exit(answer);
  }
  int status = 0;
  while (::waitpid(process, &status, 0) < 0 && errno == EINTR) {
  }
  const int answer = exit_code_of_status(status);
  return WIFEXITED(status) && answer != kNoAnswer ? std::optional(answer) : std::nullopt;
}

}  // namespace comba::cli
