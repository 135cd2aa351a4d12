#pragma once

#include "operators/delta_rule/cuda/sm90/gradients.cuh"
#include "operators/delta_rule/cuda/sm90/launch.cuh"
#include "operators/delta_rule/cuda/sm90/reduce.cuh"
#include "operators/delta_rule/cuda/sm90/reverse.cuh"

/// Launches of the backward pass of one element type:
///
///     prepare | scan, beside it reverse | gradients | reduce                     states run again
///                                reverse | gradients | reduce                     states saved by the forward call;
///                                          gradients may follow reverse chunk by chunk (ready.cuh)
namespace comba::delta_rule::cuda::sm90 {

template <class Shape>
void launch_reverse(const BackwardArguments& y, bool early, cudaStream_t stream) {
  const Arguments& x = y.forward;
  constexpr int kColumns = Shape::kSlice * Shape::kGroups;
  const dim3 grid((x.V + kColumns - 1) / kColumns, x.HV, x.sequences.N);
  launch(reverse<Shape>, grid, Shape::kThreads, sizeof(typename Shape::Shared), early, stream, y);
}

template <class Shape>
void launch_gradients(const BackwardArguments& y, cudaStream_t stream) {
  const dim3 grid(y.forward.sequences.slots * y.forward.H);
  if (grid.x == 0) return;
  launch(gradients<Shape>, grid, Shape::kThreads, Shape::shared_bytes(y.forward.V_rows), y.progress != nullptr, stream,
         y);
}

template <class Element, int kK>
void launch_backward(const BackwardArguments& y, BackwardSlices slices, bool saved, cudaStream_t stream) {
  constexpr int kWide = kK <= 128 ? 2 : 1;  // slices of a block
  slices == BackwardSlices::narrow ? launch_reverse<ReverseShape<Element, kK, 32, 1>>(y, !saved, stream)
                                   : launch_reverse<ReverseShape<Element, kK, 64, kWide>>(y, !saved, stream);
  y.forward.group == 1 ? launch_gradients<GradientsShape<Element, kK, false>>(y, stream)
                       : launch_gradients<GradientsShape<Element, kK, true>>(y, stream);
  launch(reduce, dim3(y.forward.HV + y.forward.H), kReduceThreads, 0, false, stream, y);
}

template <class Element>
void launch_backward(const BackwardArguments& y, int padded_K, BackwardSlices slices, bool saved, cudaStream_t stream) {
  if (padded_K == 64) return launch_backward<Element, 64>(y, slices, saved, stream);
  if (padded_K == 128) return launch_backward<Element, 128>(y, slices, saved, stream);
  launch_backward<Element, 256>(y, slices, saved, stream);
}

}  // namespace comba::delta_rule::cuda::sm90
