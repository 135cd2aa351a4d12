#pragma once

#include <algorithm>

#include "operators/delta_rule/cuda/device.h"
#include "operators/delta_rule/cuda/sm90/forward.h"
#include "operators/delta_rule/cuda/sm90/prepare.cuh"
#include "operators/delta_rule/cuda/sm90/scan.cuh"
#include "runtime/cuda_check.h"

/// How kernels are queued, and with which grids those of the forward pass.
namespace comba::delta_rule::cuda::sm90 {

/// Queues a kernel; if `early`, it may start before the kernel before it, which must be our own, has ended.
template <class Kernel, class Args>
void launch(Kernel kernel, dim3 grid, int threads, int shared_bytes, bool early, cudaStream_t stream, const Args& x) {
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes),
             "cudaFuncSetAttribute");
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = early;
  const cudaLaunchConfig_t config = {grid,   dim3(threads), static_cast<std::size_t>(shared_bytes),
                                     stream, &attribute,    1};
  check_cuda(cudaLaunchKernelEx(&config, kernel, x), "the launch of cuda.sm90");
}

template <class Shape>
void launch_prepare(const Arguments& x, cudaStream_t stream) {
  if (x.sequences.slots == 0) return;
  const int blocks = std::max(1, num_multiprocessors() * Shape::kBlocks / x.H);
  const dim3 grid(std::min(x.sequences.slots, blocks), x.H);
  launch(prepare<Shape>, grid, Shape::kThreads, sizeof(typename Shape::Shared), false, stream, x);
}

template <class Shape>
void launch_scan(const Arguments& x, cudaStream_t stream) {
  constexpr int kColumns = Shape::kSlice * Shape::kGroups;
  const dim3 grid((x.V + kColumns - 1) / kColumns, x.HV, x.sequences.N);
  launch(scan<Shape>, grid, Shape::kThreads, sizeof(typename Shape::Shared), x.sequences.slots > 0, stream, x);
}

}  // namespace comba::delta_rule::cuda::sm90
