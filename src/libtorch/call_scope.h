#pragma once

#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>

#include "comba/delta_rule.h"

namespace comba {

/// Where one call runs: the device of its tensors, current while this lives, and the stream LibTorch has current there.
/// Nothing here waits for the device, so a call may be captured into a CUDA graph.
class CallScope {
 public:
  /// The CPU, or a GPU in a build with CUDA: Error (unsupported) otherwise.
  explicit CallScope(c10::Device device);

  const Execution& execution() const { return execution_; }

  /// Scratch memory on the device that lives as long as this. After that LibTorch's allocator gives it only to work
  /// queued behind this call on its stream.
  Workspace workspace(int64_t bytes);

 private:
  c10::OptionalDeviceGuard guard_;
  Execution execution_;
  c10::Device device_;
  at::Tensor scratch_;  // [bytes] uint8
};

/// The stream that is current on the GPU `device`: cuda_stream.cpp, or no_cuda.cpp in a build without CUDA.
CUstream_st* current_cuda_stream(c10::Device device);

}  // namespace comba
