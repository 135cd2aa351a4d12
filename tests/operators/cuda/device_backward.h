#pragma once

#include <optional>
#include <string>

#include "operators/cuda/device_memory.h"
#include "operators/delta_rule_case.h"

namespace comba::test {

/// One backward call whose tensors stay on the GPU, as DeviceForward is one forward call. The case belongs to the
/// caller and outlives it.
class DeviceBackward {
 public:
  /// Its implementation is found by name. `only`: the one gradient that is asked for; empty: all.
  DeviceBackward(const char* implementation, Case& c, CUstream_st* stream = nullptr, const std::string& only = "");

  /// From now on it uses what the forward call has left there.
  void use(const DeviceMemory& saved, std::int64_t bytes);

  /// Queues the call on the stream.
  void run();
  /// Throws Error if the last run has found wrong borders.
  void check_borders();
  /// Copies the case's tensors again.
  void send() { tensors_.send(); }
  /// Gradients and workspace full of NaN.
  void poison();
  /// Gradients full of zeros.
  void clear() { tensors_.clear_results(); }
  /// Waits for the GPU.
  const Gradients& fetch();
  bool inputs_intact() const { return tensors_.inputs_intact(); }

 private:
  void prepare();
  Workspace workspace() const;

  const delta_rule::Implementation implementation_;
  Gradients out_;
  DeviceTensors tensors_;
  DeltaRuleBackward args_;
  delta_rule::Problem problem_;
  std::optional<DeviceMemory> workspace_;
  std::int64_t workspace_bytes_ = 0;
};

/// Whether all gradients have the same bits; the answer names those that have not.
::testing::AssertionResult same_bits(const Gradients& x, const Gradients& y);

}  // namespace comba::test
