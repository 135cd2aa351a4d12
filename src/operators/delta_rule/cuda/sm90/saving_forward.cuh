#pragma once

#include "operators/delta_rule/cuda/sm90/launch.cuh"

/// Launches of the forward pass of one element type that leaves what the backward pass needs.
namespace comba::delta_rule::cuda::sm90 {

template <class Element, int kK>
void launch_saving_forward(const Arguments& x, SavingSlices slices, cudaStream_t stream) {
  launch_prepare<PrepareShape<Element, kK, false>>(x, stream);
  constexpr int kWide = kK <= 128 ? 2 : 1;  // slices of a block
  slices == SavingSlices::narrow ? launch_scan<ScanShape<Element, kK, 32, 1, false, true>>(x, stream)
                                 : launch_scan<ScanShape<Element, kK, 64, kWide, false, true>>(x, stream);
}

template <class Element>
void launch_saving_forward(const Arguments& x, int padded_K, SavingSlices slices, cudaStream_t stream) {
  if (padded_K == 64) return launch_saving_forward<Element, 64>(x, slices, stream);
  if (padded_K == 128) return launch_saving_forward<Element, 128>(x, slices, stream);
  launch_saving_forward<Element, 256>(x, slices, stream);
}

}  // namespace comba::delta_rule::cuda::sm90
