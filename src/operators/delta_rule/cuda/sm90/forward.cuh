#pragma once

#include <algorithm>

#include "operators/delta_rule/cuda/device.h"
#include "operators/delta_rule/cuda/sm90/forward.h"
#include "operators/delta_rule/cuda/sm90/prepare.cuh"
#include "operators/delta_rule/cuda/sm90/scan.cuh"
#include "runtime/cuda_check.h"

/// Launches of the kernels of one element type; each is compiled in a file of its own.
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

/// Without a full p.
template <class Element, int kK>
void launch_both(const Arguments& x, SliceChoice slices, cudaStream_t stream) {
  launch_prepare<PrepareShape<Element, kK, false>>(x, stream);
  if (slices.columns == 16) return launch_scan<ScanShape<Element, kK, 16, 1, false>>(x, stream);
  if (slices.columns == 32) return launch_scan<ScanShape<Element, kK, 32, 1, false>>(x, stream);
  if constexpr (kK <= 128) {
    if (slices.groups == 2) return launch_scan<ScanShape<Element, kK, 64, 2, false>>(x, stream);
  }
  launch_scan<ScanShape<Element, kK, 64, 1, false>>(x, stream);
}

/// With a full p: fewer shapes, since each takes long to compile.
template <class Element>
void launch_with_feedback(const Arguments& x, int padded_K, SliceChoice slices, cudaStream_t stream) {
  if (padded_K == 256) {
    launch_prepare<PrepareShape<Element, 256, true>>(x, stream);
    return launch_scan<ScanShape<Element, 256, 32, 1, true>>(x, stream);
  }
  launch_prepare<PrepareShape<Element, 128, true>>(x, stream);
  if (slices.columns == 16) return launch_scan<ScanShape<Element, 128, 16, 1, true>>(x, stream);
  if (slices.columns == 32) return launch_scan<ScanShape<Element, 128, 32, 1, true>>(x, stream);
  launch_scan<ScanShape<Element, 128, 64, 2, true>>(x, stream);
}

template <class Element>
void launch_forward(const Arguments& x, int padded_K, SliceChoice slices, cudaStream_t stream) {
  if (x.full_feedback) return launch_with_feedback<Element>(x, padded_K, slices, stream);
  if (padded_K == 64) return launch_both<Element, 64>(x, slices, stream);
  if (padded_K == 128) return launch_both<Element, 128>(x, slices, stream);
  launch_both<Element, 256>(x, slices, stream);
}

}  // namespace comba::delta_rule::cuda::sm90
