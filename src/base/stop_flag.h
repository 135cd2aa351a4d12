#pragma once

#include <atomic>

namespace comba {

/// Asks a long loop to end early. Another thread, or a signal handler, sets it; the loop polls it between steps.
class StopFlag {
 public:
  /// Async-signal-safe. The first request stays.
  void request(int signal_number) noexcept {
    int none = 0;
    signal_number_.compare_exchange_strong(none, signal_number);
  }

  bool requested() const noexcept { return signal_number() != 0; }

  /// The signal that asked (SIGINT, SIGTERM), or 0.
  int signal_number() const noexcept { return signal_number_.load(std::memory_order_relaxed); }

 private:
  static_assert(std::atomic<int>::is_always_lock_free, "a signal handler must not take a lock");
  std::atomic<int> signal_number_{0};
};

}  // namespace comba
