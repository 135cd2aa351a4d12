#include "operators/delta_rule/cuda/sm90/backward.cuh"

namespace comba::delta_rule::cuda::sm90 {

void launch_backward_f16(const BackwardArguments& y, int padded_K, SavingSlices slices, bool saved,
                         cudaStream_t stream) {
  if (!saved) launch_saving_forward_f16(y.forward, padded_K, slices, stream);
  launch_backward<cutlass::half_t>(y, padded_K, slices, saved, stream);
}

}  // namespace comba::delta_rule::cuda::sm90
