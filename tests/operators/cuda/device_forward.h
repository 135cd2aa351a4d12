#pragma once

#include <optional>
#include <string>
#include <vector>

#include "operators/cuda/device_memory.h"
#include "operators/delta_rule_case.h"

namespace comba::test {

/// One forward call whose tensors stay on the GPU, for what a copy to and fro with each call would hide: replays,
/// repeats, borders that a check in host memory would refuse. The case belongs to the caller and outlives it.
class DeviceForward {
 public:
  /// Its implementation is found by name: cuda.sm90. The stream is a cudaStream_t; null is the default one.
  DeviceForward(const char* implementation, Case& c, CUstream_st* stream = nullptr, bool with_final_state = true);

  /// Bytes it can leave for the backward call.
  std::int64_t saved_bytes() const;
  /// From now on it leaves them there.
  void save_to(const DeviceMemory& saved);

  /// Queues the call on the stream.
  void run();
  /// Throws Error if the last run has found wrong borders.
  void check_borders();
  /// Copies the case's tensors again.
  void send() { tensors_.send(); }
  /// Outputs and workspace full of NaN.
  void poison();
  /// Outputs full of zeros.
  void clear() { tensors_.clear_results(); }
  /// Waits for the GPU.
  const Outputs& fetch();
  bool inputs_intact() const { return tensors_.inputs_intact(); }

 private:
  void prepare();
  Workspace workspace() const;

  const delta_rule::Implementation implementation_;
  Outputs out_;
  DeviceTensors tensors_;
  DeltaRuleForward args_;
  delta_rule::Problem problem_;
  std::optional<DeviceMemory> workspace_;
  std::int64_t workspace_bytes_ = 0;
};

/// The implementation of the GPU of that name.
delta_rule::Implementation device_implementation(const std::string& name);

/// The implementations of the GPU that take such a forward call, by name.
std::vector<const char*> device_implementations_for(Case& c);

}  // namespace comba::test
