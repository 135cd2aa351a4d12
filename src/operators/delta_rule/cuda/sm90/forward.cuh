#pragma once

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

template <class Element, int kK>
void launch_prepare(const Arguments& x, cudaStream_t stream) {
  if (x.sequences.slots == 0) return;
  const dim3 grid(x.sequences.slots, x.HV / x.group);
  launch(prepare<Element, kK>, grid, kWarpGroup, sizeof(PrepareShared<Element, kK>), false, stream, x);
}

template <class Shape>
void launch_scan(const Arguments& x, cudaStream_t stream) {
  constexpr int kColumns = Shape::kSlice * Shape::kGroups;
  const dim3 grid((x.V + kColumns - 1) / kColumns, x.HV, x.sequences.N);
  launch(scan<Shape>, grid, Shape::kThreads, sizeof(typename Shape::Shared), x.sequences.slots > 0, stream, x);
}

template <class Element, int kK>
void launch_both(const Arguments& x, SliceChoice slices, cudaStream_t stream) {
  launch_prepare<Element, kK>(x, stream);
  if (slices.columns == 16) return launch_scan<ScanShape<Element, kK, 16, 1>>(x, stream);
  if (slices.columns == 32) return launch_scan<ScanShape<Element, kK, 32, 1>>(x, stream);
  if constexpr (kK <= 128) {
    if (slices.groups == 2) return launch_scan<ScanShape<Element, kK, 64, 2>>(x, stream);
  }
  launch_scan<ScanShape<Element, kK, 64, 1>>(x, stream);
}

template <class Element>
void launch_forward(const Arguments& x, int padded_K, SliceChoice slices, cudaStream_t stream) {
  if (padded_K == 64) return launch_both<Element, 64>(x, slices, stream);
  if (padded_K == 128) return launch_both<Element, 128>(x, slices, stream);
  launch_both<Element, 256>(x, slices, stream);
}

}  // namespace comba::delta_rule::cuda::sm90
