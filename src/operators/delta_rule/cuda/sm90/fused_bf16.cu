#include "operators/delta_rule/cuda/sm90/fused_launch.cuh"

namespace comba::delta_rule::cuda::sm90 {

void launch_fused_bf16(const Arguments& x, int padded_K, SliceChoice slices, cudaStream_t stream) {
  launch_fused<cutlass::bfloat16_t>(x, padded_K, slices, stream);
}

}  // namespace comba::delta_rule::cuda::sm90
