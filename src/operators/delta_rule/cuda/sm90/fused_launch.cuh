#pragma once

#include "operators/delta_rule/cuda/sm90/fused.cuh"
#include "operators/delta_rule/cuda/sm90/launch.cuh"

/// Launches of the fused forward pass of one element type; each is compiled in a file of its own.
namespace comba::delta_rule::cuda::sm90 {

template <class Shape>
void launch_fused(const Arguments& x, cudaStream_t stream) {
  const dim3 grid(x.HV, x.sequences.N);
  launch(fused<Shape>, grid, Shape::kThreads, sizeof(typename Shape::Shared), false, stream, x);
}

template <class Element>
void launch_fused(const Arguments& x, int padded_K, SliceChoice slices, cudaStream_t stream) {
  if (padded_K == 64 && slices.columns == 32) return launch_fused<FusedShape<Element, 64, 32>>(x, stream);
  if (padded_K == 64) return launch_fused<FusedShape<Element, 64, 64>>(x, stream);
  if (slices.columns == 32) return launch_fused<FusedShape<Element, 128, 32>>(x, stream);
  launch_fused<FusedShape<Element, 128, 64>>(x, stream);
}

}  // namespace comba::delta_rule::cuda::sm90
