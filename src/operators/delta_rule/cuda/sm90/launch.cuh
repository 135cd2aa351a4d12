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

/// The value heads of a piece of prepare's work, for the least time: small pieces are shared out more evenly, but each
/// brings the tiles of q and k, which takes about a quarter of the time of a value head.
inline int piece_heads(int group, int key_heads, int teams) {
  const auto parts = [](int whole, int part) { return (whole + part - 1) / part; };
  const auto time = [&](int heads) { return parts(key_heads * parts(group, heads), teams) * (4 * heads + 1); };
  int best = group;
  for (int heads = group; heads > 1;) {
    heads = parts(heads, 2);
    if (time(heads) < time(best)) best = heads;
  }
  return best;
}

template <class Shape>
void launch_prepare(Arguments x, cudaStream_t stream) {
  if (x.sequences.slots == 0) return;
  const int blocks = x.prepare_multiprocessors > 0 ? x.prepare_multiprocessors : num_multiprocessors();
  const int key_heads = x.sequences.slots * x.H;
  x.piece_heads = piece_heads(x.group, key_heads, blocks * Shape::kTeams);
  x.pieces_of_group = (x.group + x.piece_heads - 1) / x.piece_heads;
  const dim3 grid(std::min(key_heads * x.pieces_of_group, blocks));
  launch(prepare<Shape>, grid, Shape::kThreads, sizeof(typename Shape::Shared), false, stream, x);
}

template <class Shape>
void launch_scan(const Arguments& x, cudaStream_t stream) {
  constexpr int kColumns = Shape::kSlice * Shape::kGroups;
  const int columns = x.states ? (x.V + kSavedRows - 1) / kSavedRows * kSavedRows : x.V;
  const dim3 grid((columns + kColumns - 1) / kColumns, x.HV, x.sequences.N);
  launch(scan<Shape>, grid, Shape::kThreads, sizeof(typename Shape::Shared), x.sequences.slots > 0, stream, x);
}

}  // namespace comba::delta_rule::cuda::sm90
