#include "operators/delta_rule/cuda/sm90/saving_forward.cuh"

namespace comba::delta_rule::cuda::sm90 {

void launch_saving_forward_f16(const Arguments& x, int padded_K, SavingSlices slices, cudaStream_t stream) {
  launch_saving_forward<cutlass::half_t>(x, padded_K, slices, stream);
}

}  // namespace comba::delta_rule::cuda::sm90
