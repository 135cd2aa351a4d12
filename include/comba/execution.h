#pragma once

#include <cstdint>

struct CUstream_st;

namespace comba {

enum class DeviceType : std::uint8_t { cpu, cuda };

/// Where a call runs. All its tensors and its workspace lie in memory that this device reads and writes.
struct Execution {
  DeviceType device = DeviceType::cpu;
  /// cuda: the cudaStream_t the call is queued on, of the calling thread's current device; null is the default stream.
  /// The call returns before it has run.
  CUstream_st* stream = nullptr;
};

}  // namespace comba
