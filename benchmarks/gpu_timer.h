#pragma once

#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <vector>

#include "gpu_clock.h"
#include "libtorch/call_scope.h"
#include "runtime/cuda_check.h"

namespace comba::benchmarks {

/// The first GPU, and a stream of it, which is the current one as long as this lives.
struct GpuTimer {
  c10::Device device{c10::DeviceType::CUDA, 0};
  c10::StreamGuard guard{c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA).getStreamFromGlobalPool(device)};
  CUstream_st* stream = current_cuda_stream(device);

  void wait() const { check_cuda(cudaStreamSynchronize(stream), "cudaStreamSynchronize"); }
  /// Of calls in memory that is not cached; each is made by `make`.
  std::vector<double> time(double footprint, int repetitions, const std::function<GpuCall()>& make) const {
    std::vector<GpuCall> calls;
    for (int i = 0; i < num_buffers(footprint); ++i) calls.push_back(make());
    return time_on_gpu(calls, stream, repetitions);
  }
};

/// {us, p10_us, p90_us, method, samples_us}.
inline nlohmann::ordered_json summary(const std::vector<double>& samples) {
  nlohmann::ordered_json json = {{"us", quantile(samples, 0.5) * 1e6},
                                 {"p10_us", quantile(samples, 0.1) * 1e6},
                                 {"p90_us", quantile(samples, 0.9) * 1e6},
                                 {"method", "graph"}};
  for (const double sample : samples) json["samples_us"].push_back(std::round(sample * 1e9) / 1e3);
  return json;
}

}  // namespace comba::benchmarks
