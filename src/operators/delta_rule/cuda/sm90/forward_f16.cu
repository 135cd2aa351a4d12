#include "operators/delta_rule/cuda/sm90/forward.cuh"

namespace comba::delta_rule::cuda::sm90 {

void launch_forward_f16(const Arguments& x, int padded_K, SliceChoice slices, cudaStream_t stream) {
  launch_forward<cutlass::half_t>(x, padded_K, slices, stream);
}

}  // namespace comba::delta_rule::cuda::sm90
