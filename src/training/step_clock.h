#pragma once

#include <c10/core/Device.h>
#include <c10/core/Event.h>

#include <chrono>
#include <deque>
#include <optional>
#include <utility>

namespace comba::training {

/// How long steps take where they are computed, while the host starts the next one before the last has ended: on a GPU
/// between events of its stream, on a CPU by the wall clock.
class StepClock {
 public:
  explicit StepClock(c10::Device device) : device_(device) {}

  /// Around a step. Does not wait.
  void start() { start_ = now(); }
  void stop() { steps_.emplace_back(std::move(start_), now()); }

  /// Seconds of the oldest step that was stopped and not asked for; waits for its end.
  double take_seconds();

  /// Forgets all that was not asked for.
  void clear() { steps_.clear(); }

 private:
  /// A moment that has come, or on a GPU may be yet to come.
  struct Moment {
    std::chrono::steady_clock::time_point on_host;
    std::optional<c10::Event> on_gpu;
  };

  Moment now() const;

  c10::Device device_;
  Moment start_;                                 // of the last step
  std::deque<std::pair<Moment, Moment>> steps_;  // start and end
};

}  // namespace comba::training
