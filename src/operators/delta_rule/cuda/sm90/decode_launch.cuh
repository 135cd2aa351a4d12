#pragma once

#include <algorithm>
#include <array>
#include <atomic>

#include "operators/delta_rule/cuda/device.h"
#include "operators/delta_rule/cuda/generic/problem_arguments.cuh"
#include "operators/delta_rule/cuda/sm90/decode.cuh"
#include "operators/delta_rule/cuda/sm90/tensor_map.h"
#include "runtime/cuda_check.h"

namespace comba::delta_rule::cuda::sm90 {

/// Blocks of decode that run at once on the current device, whose limit of shared memory this sets. Asked once: the
/// answers take longer than the launch.
template <class Shape>
unsigned fitting_blocks() {
  constexpr int kDevices = 64, kBytes = sizeof(typename Shape::Shared);
  static std::array<std::atomic<unsigned>, kDevices> known{};
  const int device = current_device();
  std::atomic<unsigned>* const kept = device < kDevices ? &known[device] : nullptr;
  if (const unsigned fitting = kept ? kept->load() : 0; fitting > 0) return fitting;
  check_cuda(cudaFuncSetAttribute(decode<Shape>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
             "cudaFuncSetAttribute");
  int blocks = 0;
  check_cuda(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, decode<Shape>, Shape::kThreads, kBytes),
             "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
  const auto fitting = static_cast<unsigned>(num_multiprocessors() * blocks);
  if (kept) *kept = fitting;
  return fitting;
}

/// Queues decode with pieces of a shape; nothing but speed depends on it.
template <class Shape>
void launch_decode(const Problem& x, const DeltaRuleDecode& args) {
  StateDecode a{state_map(args.state, Shape::kKeys, Shape::kBoxColumns), generic::decode_arguments(x, args)};
  a.call.num_slices = static_cast<int>((x.V + Shape::kColumns - 1) / Shape::kColumns);
  a.call.num_pieces = static_cast<unsigned>(x.B * x.HV * a.call.num_slices);
  const unsigned blocks = std::min(a.call.num_pieces, fitting_blocks<Shape>());
  decode<Shape><<<blocks, Shape::kThreads, sizeof(typename Shape::Shared), x.execution.stream>>>(a);
  check_cuda(cudaGetLastError(), "the launch of cuda.sm90");
}

}  // namespace comba::delta_rule::cuda::sm90
