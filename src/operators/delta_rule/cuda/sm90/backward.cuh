#pragma once

#include "operators/delta_rule/cuda/sm90/forward.cuh"
#include "operators/delta_rule/cuda/sm90/gradients.cuh"
#include "operators/delta_rule/cuda/sm90/reduce.cuh"
#include "operators/delta_rule/cuda/sm90/reverse.cuh"
#include "operators/delta_rule/cuda/sm90/states.cuh"

/// Launches of the backward pass of one element type:
///
///     prepare | run_states beside reverse | gradients | reduce
namespace comba::delta_rule::cuda::sm90 {

template <class States, class Reverse>
void launch_along_sequences(const BackwardArguments& y, cudaStream_t stream) {
  const Arguments& x = y.forward;
  constexpr int kColumns = States::kSlice * States::kGroups;
  const dim3 grid((x.V + kColumns - 1) / kColumns, x.HV, x.sequences.N);
  launch(run_states<States>, grid, States::kThreads, sizeof(typename States::Shared), x.sequences.slots > 0, stream, y);
  launch(reverse<Reverse>, grid, Reverse::kThreads, sizeof(typename Reverse::Shared), true, stream, y);
}

template <class Shape>
void launch_gradients(const BackwardArguments& y, cudaStream_t stream) {
  const dim3 grid(y.forward.sequences.slots, y.forward.H);
  if (grid.x == 0) return;
  launch(gradients<Shape>, grid, Shape::kThreads, Shape::shared_bytes(y.V_rows), false, stream, y);
}

template <class Element, int kK>
void launch_backward(const BackwardArguments& y, BackwardSlices slices, cudaStream_t stream) {
  launch_prepare<PrepareShape<Element, kK, false>>(y.forward, stream);
  constexpr int kWide = kK <= 128 ? 2 : 1;  // slices of a block
  if (slices == BackwardSlices::narrow) {
    launch_along_sequences<StatesShape<Element, kK, 32, 1>, ReverseShape<Element, kK, 32, 1>>(y, stream);
  } else {
    launch_along_sequences<StatesShape<Element, kK, 64, kWide>, ReverseShape<Element, kK, 64, kWide>>(y, stream);
  }
  y.forward.group == 1 ? launch_gradients<GradientsShape<Element, kK, false>>(y, stream)
                       : launch_gradients<GradientsShape<Element, kK, true>>(y, stream);
  launch(reduce, dim3(y.forward.HV + y.forward.H), kReduceThreads, 0, false, stream, y);
}

template <class Element>
void launch_backward(const BackwardArguments& y, int padded_K, BackwardSlices slices, cudaStream_t stream) {
  if (padded_K == 64) return launch_backward<Element, 64>(y, slices, stream);
  if (padded_K == 128) return launch_backward<Element, 128>(y, slices, stream);
  launch_backward<Element, 256>(y, slices, stream);
}

}  // namespace comba::delta_rule::cuda::sm90
