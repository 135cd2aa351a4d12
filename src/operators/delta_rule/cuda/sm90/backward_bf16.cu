#include "operators/delta_rule/cuda/sm90/backward.cuh"

namespace comba::delta_rule::cuda::sm90 {

void launch_backward_bf16(const BackwardArguments& y, int padded_K, SavingSlices slices, bool saved,
                          cudaStream_t stream) {
  if (!saved) launch_saving_forward_bf16(y.forward, padded_K, slices, stream);
  launch_backward<cutlass::bfloat16_t>(y, padded_K, slices, saved, stream);
}

}  // namespace comba::delta_rule::cuda::sm90
