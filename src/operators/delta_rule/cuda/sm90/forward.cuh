#pragma once

#include "operators/delta_rule/cuda/sm90/launch.cuh"

/// Launches of the forward pass of one element type; each is compiled in a file of its own.
namespace comba::delta_rule::cuda::sm90 {

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
