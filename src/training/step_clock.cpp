#include "training/step_clock.h"

#include <c10/core/impl/VirtualGuardImpl.h>

namespace comba::training {

StepClock::Moment StepClock::now() const {
  Moment moment{.on_host = std::chrono::steady_clock::now(), .on_gpu = {}};
  if (!device_.is_cpu()) {
    moment.on_gpu.emplace(device_.type(), c10::EventFlag::BACKEND_DEFAULT);  // one that tells the time
    moment.on_gpu->record(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_));
  }
  return moment;
}

double StepClock::take_seconds() {
  const auto [start, end] = std::move(steps_.front());
  steps_.pop_front();
  if (!end.on_gpu) return std::chrono::duration<double>(end.on_host - start.on_host).count();
  end.on_gpu->synchronize();
  return start.on_gpu->elapsedTime(*end.on_gpu) * 1e-3;
}

}  // namespace comba::training
